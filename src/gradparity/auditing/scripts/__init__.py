"""Somebody's script, run as it is, with all the processes that it consists of and every way in which it may end.

Read in this order: ``run_script``, ``sudden_end``, ``child_processes`` and ``spawned_processes`` (it starts processes
itself), ``torchrun`` and ``facts_of_ranks`` (it is one of several ranks), ``ranks_side_by_side``.
"""
