"""The reference that a loop means to be: it is changed where the loop does something of its own on purpose.

Read in this order: ``intended_reference``, ``closest_reference`` (of several that a loop may mean), ``meant_numbers``,
then what a loop may bring along: ``own_optimizers``, ``own_learning_rates``, ``own_scaler``, ``own_draws``,
``own_freezing``, ``own_gradients``, ``own_updates``; and ``own_ways``, which no reference follows.
"""
