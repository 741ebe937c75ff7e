"""Hashes, norms and comparisons of many tensors at once, on the GPU that holds them, without a wait.

Read in this order: ``digests`` and ``count_differences`` (the public functions), ``mixing`` (the hash, and how norms
are read from memory), ``plain`` (both in operations of PyTorch), ``with_triton`` (the choice between these and
Triton), ``kernels`` (both in Triton), ``whole_words`` (the memory that these can read), ``blocks`` (the blocks of
tensors that one launch reads), ``launch`` (the kernels called). A digest made by Triton is the one that PyTorch's
operations make, on a GPU or on the CPU.
"""
