"""The numbers that a loop computes beside its gradients: updates that it makes itself, and averages of the weights.

Read in this order: ``judged_updates`` with ``fitted_updates`` and ``update_rules`` (the optimizer of PyTorch that makes
the same updates), ``own_averages`` with ``found_averages``.
"""
