"""Watchers of a running training: they write down facts, judge nothing, and change nothing.

Read in this order: ``watch`` (all of it), ``found_optimizers`` and ``found_modules`` (the objects that train),
``watched_optimizer`` (looks at gradients, weights and state), ``function_watchers``, ``clip_watchers``,
``scaler_watchers`` and ``schedule_watchers`` (PyTorch's functions, in the order of a step), ``later`` and
``late_looks`` (nothing waits for a GPU), ``first_hashes`` (tensors that move to one), ``user_lines`` with
``call_stack`` (the line that called them). Read off the graph of a loss: ``saved_tensors``, ``loss_weights``,
``loss_inputs``, ``graph_facts``, ``backward_facts``, ``kept_graphs``, ``input_gradients``. One fact each:
``found_without_optimizer`` and ``parameters_without_optimizer``, ``frozen_batch_norms``, ``weight_averages``,
``random_numbers``, ``replicas``, ``samplers``. ``tensor_keys`` numbers tensors.
"""
