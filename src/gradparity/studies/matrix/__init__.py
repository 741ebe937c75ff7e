"""Both routes in every combination of task, precision, optimizer, schedule, average, clipping and accumulation.

In reading order: ``cell`` (the axes, and which combinations PyTorch itself refuses), ``two_runs`` (a cell's two runs),
``run`` (one cell, or many on several processes), ``report`` (sentence and table), ``picture`` (the heatmap), ``board``
(TensorBoard).
"""
