"""The arithmetic of other processors, imitated: the last bits of all that a processor rounds in its own way are changed.

Sums, products of matrices, roots and exponentials depend on the processor: on the width of its vectors, on the order
in which a library adds, on whether it multiplies and adds at once. A single addition, multiplication or division does
not; IEEE 754 says what comes out.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROUNDED = frozenset(
    [
        "addmm",
        "mm",
        "bmm",
        "baddbmm",
        "addmv",
        "mv",
        "dot",
        "convolution",
        "convolution_backward",
        "sum",
        "mean",
        "linalg_vector_norm",
        "_foreach_norm",
        "nll_loss_forward",
        "nll_loss2d_forward",
        "embedding_dense_backward",
        "_log_softmax",
        "_log_softmax_backward_data",
        "_softmax",
        "_softmax_backward_data",
        "native_layer_norm",
        "native_layer_norm_backward",
        "native_batch_norm",
        "native_batch_norm_backward",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "tanh",
        "sigmoid",
        "gelu",
        "gelu_backward",
        "var_mean",
        "randn",
        "normal_",
        "addcmul_",
        "addcdiv_",
        "lerp_",
    ]
)
"""Operations whose results IEEE 754 leaves open, by their names in ATen."""

UPDATES = {"addcmul_", "addcdiv_", "lerp_"}
"""Of those, the ones that change a number by an amount which may be zero."""

BITS = {
    torch.float64: (torch.int64, 52),
    torch.float32: (torch.int32, 23),
    torch.float16: (torch.int16, 10),
    torch.bfloat16: (torch.int16, 7),
}
"""By dtype: the whole numbers of its size, and how many bits of it are the fraction."""


class OtherProcessor(TorchDispatchMode):
    """Inside, what a processor rounds in its own way is rounded as processor number ``seed`` does."""

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name not in ROUNDED:
            return func(*args, **(kwargs or {}))
        before = args[0].clone() if name in UPDATES else None
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.dtype in BITS and tensor.layout == torch.strided:
                self.round_otherwise(tensor, before)
        return out

    def round_otherwise(self, tensor, before=None):
        """Change the last bits of a quarter of the numbers, always in the same way for the same fraction.

        Signs and exponents do not matter: what is twice as large, on any processor, is rounded in the same way. Nor is
        anything rounded that an operation has left as it was.
        """
        whole, width = BITS[tensor.dtype]
        bits = tensor.detach().view(whole)
        fraction = (bits & ((1 << width) - 1)).long()
        mixed = (fraction + self.seed * 7919 + 1) * 0x9E3779B97F4A7C1 % 0x7FFFFFFFFFFF
        other = ((mixed >> 20) & 3 == 0) & tensor.isfinite() & (tensor != 0)
        if before is not None:
            other &= tensor != before
        bits.copy_(torch.where(other, bits ^ 1, bits))
