"""Mixed precision: the dtype of the parameters, the dtype of the forward, and whether the loss is scaled.

fp16 gradients below 6e-8 are zero, so the loss is multiplied by a large scale before it is differentiated, and
the gradients are divided by it before anyone reads them (https://arxiv.org/abs/1710.03740). bf16 has the range
of fp32 and needs no scale.
"""

from dataclasses import dataclass

import torch
from torch.amp.grad_scaler import GradScaler


@dataclass(frozen=True)
class Precision:
    """A dtype for the parameters, and one for the matrix products inside ``autocast``."""

    parameters: torch.dtype
    compute: torch.dtype

    def autocast(self, device_type: str) -> torch.autocast:
        """Return a fresh context for one forward, on ``"cpu"`` or ``"cuda"``; it does nothing if the dtypes agree.

        One forward each: autocast caches the low-precision copies of the weights until it is left, and a context
        kept open over ``optimizer.step()`` would go on computing with the old ones.
        """
        mixed = self.compute != self.parameters
        return torch.autocast(device_type, dtype=self.compute if mixed else None, enabled=mixed)

    def scaler(self, device_type: str, *, init_scale: float, growth_interval: int, backoff_factor: float) -> GradScaler:
        """Return a loss scaler, enabled only if ``compute`` is fp16.

        The arguments are those of ``torch.amp.GradScaler``.

        Raises:
            ValueError: if ``backoff_factor`` is so close to 1 that the scale, an fp32 number, could not fall.
        """
        if 1 - backoff_factor < 2**-23:
            raise ValueError(f"backoff_factor is {backoff_factor}; an fp32 scale times that is the same scale")
        return GradScaler(
            device_type,
            init_scale=init_scale,
            growth_interval=growth_interval,
            backoff_factor=backoff_factor,
            enabled=self.compute == torch.float16,
        )


PRECISIONS = {
    "fp64": Precision(torch.float64, torch.float64),
    "fp32": Precision(torch.float32, torch.float32),
    "bf16": Precision(torch.float32, torch.bfloat16),
    "fp16": Precision(torch.float32, torch.float16),
}
