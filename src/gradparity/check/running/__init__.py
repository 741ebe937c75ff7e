"""The loop of a user, run in a process of its own and observed: what it does, how it ends, and what it leaves behind.

Read in this order: ``user_loop`` (found and called), ``observe`` (under the stress scenario), ``loop_end``,
``run_in_child`` and ``probe`` (all observations of it), ``audited`` (what an audit sees of it), ``changing_lines`` (the
lines that wrote what differs), ``users_stack``, ``without_compiler``. Problems other than a fault of a step:
``uncheckable``, ``trained_objects``, ``global_state``, ``graph_leaks``. ``float64_reference`` checks the first gradient
in float64.
"""
