"""Both routes in every combination of task, precision, optimizer, schedule, average, clipping and accumulation.

Read in this order: ``cell`` (the axes, and which combinations PyTorch itself refuses), ``refused_by_torch`` (these,
tried once each), ``selection`` (cells chosen on the command line), ``two_runs`` (both runs of a cell), ``run`` (one
cell, or many on several processes), ``heatmap``, ``result``, ``hparams`` (every cell in TensorBoard).
"""
