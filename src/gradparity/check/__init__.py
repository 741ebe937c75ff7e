"""What is wrong with a training loop, looked up: the loop is watched under the stress scenario, and so is each fault.

In reading order: ``observe`` (a loop as it was seen), ``lookup`` (which fault behaves just so), ``guess`` (faults with
a number in them), ``rounding`` (the same but for rounding), ``user_loop`` (a function that somebody has named),
``sighting`` (all that is seen of it) and ``apart`` (in a process of its own), ``settings`` and ``given`` (what it has
changed), ``plight`` (what is so wrong that no fault explains it), ``told`` (the answer, for people and programs),
``command``. On several ranks: ``on_ranks`` (the check), ``of_rank`` (what a rank sees), ``lookup_on_ranks``.
"""
