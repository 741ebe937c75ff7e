"""The fields of a configuration, each with its meaning, range and default; ``--help`` prints these docstrings."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gradparity.processes.determinism import Device

TaskName = Literal[
    "digits_mlp",
    "digits_cnn",
    "transformer",
    "gru",
    "lstm",
    "branches",
    "additive",
    "matrices",
    "checkpointed",
    "channels_last",
    "compiled",
    "penalty",
]
PrecisionName = Literal["fp64", "fp32", "bf16", "fp16"]
CandidateName = Literal["manual", "frugal", "backward", "naive", "summed-loss", "clip-before-unscale"]

LARGEST_COUNT = 1_000_000
"""The largest value of any count."""

LARGEST_NUMBER = 1e30
"""The largest number. float32 ends at 3.4e38, and optimizers divide a learning rate by as little as 0.001."""

MOST_THREADS = 1024
"""With more than some ten thousand threads, the OpenMP runtime ends the process."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, with two parameter groups, and its learning rate schedule."""

    name: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with momentum 0.9."""

    lr: float = 0.01
    """Peak learning rate, above 0."""

    weight_decay: float = 0.1
    """Decay of the weights with two or more dimensions, at least 0; the others do not decay."""

    warmup_steps: int = 5
    """Steps in which the learning rate rises; after them it falls along a cosine. At least 0."""

    def __post_init__(self) -> None:
        _require(0 < self.lr <= LARGEST_NUMBER, "optimizer.lr", self.lr, f"above 0 and up to {LARGEST_NUMBER:g}")
        _require(
            0 <= self.weight_decay <= LARGEST_NUMBER,
            "optimizer.weight_decay",
            self.weight_decay,
            f"0 to {LARGEST_NUMBER:g}",
        )
        _require(
            0 <= self.warmup_steps <= LARGEST_COUNT,
            "optimizer.warmup_steps",
            self.warmup_steps,
            f"0 to {LARGEST_COUNT}",
        )


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Clipping of the gradients before the optimizer reads them."""

    by: Literal["none", "norm", "value"] = "norm"
    """Nothing; scale all gradients to a common L2 norm; or cut each element."""

    threshold: float = 1.0
    """The largest norm or absolute value, above 0."""

    def __post_init__(self) -> None:
        _require(
            0 < self.threshold <= LARGEST_NUMBER,
            "clip.threshold",
            self.threshold,
            f"above 0 and up to {LARGEST_NUMBER:g}",
        )


@dataclass(frozen=True, kw_only=True)
class ScalerConfig:
    """The loss scale, in fp16 only."""

    init_scale: float = 65536.0
    """The first scale, above 0; a power of two loses no bits."""

    growth_interval: int = 2000
    """Steps without overflow after which the scale doubles, at least 1."""

    backoff_factor: float = 0.5
    """The factor by which an overflow lowers the scale, between 0 and 1."""

    def __post_init__(self) -> None:
        _require(
            0 < self.init_scale <= LARGEST_NUMBER,
            "scaler.init_scale",
            self.init_scale,
            f"above 0 and up to {LARGEST_NUMBER:g}",
        )
        _require(
            1 <= self.growth_interval <= LARGEST_COUNT,
            "scaler.growth_interval",
            self.growth_interval,
            f"1 to {LARGEST_COUNT}",
        )
        _require(0 < self.backoff_factor < 1, "scaler.backoff_factor", self.backoff_factor, "between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Two trainings of the same model on the same data: a reference by .backward(), and a candidate."""

    name: str = "two_ways"
    """The name of the run; its files go to a numbered folder under OUTPUT/NAME."""

    task: TaskName | list[TaskName] = "digits_mlp"
    """The task to train; of a list, one after the other."""

    candidate: CandidateName = "manual"
    """The loop that is compared with .backward(): the manual route; the same in less memory; .backward() again, as a
    null test; or a loop with one fault."""

    precision: PrecisionName = "fp32"
    """fp64 and fp32 compute in that dtype; bf16 and fp16 keep fp32 parameters and compute under autocast, fp16 with a
    loss scale."""

    accumulation_steps: int = 3
    """Microbatches per optimizer step (K), at least 1."""

    microbatch_size: int = 32
    """Samples per microbatch, at least 1; the last of an epoch may have fewer."""

    steps: int = 60
    """Optimizer steps, at least 1."""

    evaluate_every: int = 20
    """Steps between two evaluations on held-out data, at least 1; the last step is always followed by one."""

    checkpoint_every: int = 20
    """Steps between two checkpoints for --resume, at least 1; the last step is always followed by one."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    scaler: ScalerConfig = field(default_factory=ScalerConfig)

    seed: int = 0
    """Seed of the streams for initial weights, data order and dropout, at least 0."""

    threads: int = 1
    """CPU threads of torch, 1 to 1024. A different number rounds sums differently."""

    device: Device = "cpu"
    """The device of both runs."""

    output: Path = Path("runs")
    """Folder for TensorBoard files, exact figures and verdicts."""

    quiet: bool = False
    """Only the verdicts: no progress, no tables."""

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"\w[\w.-]*", self.name)
        _require(bool(plain), "name", self.name, "letters, digits, '_', '-' and '.', not starting with '-' or '.'")
        _require(bool(self.tasks), "task", self.task, "one task or a list of them")
        for field_name in ("accumulation_steps", "microbatch_size", "steps", "evaluate_every", "checkpoint_every"):
            value = getattr(self, field_name)
            _require(1 <= value <= LARGEST_COUNT, field_name, value, f"1 to {LARGEST_COUNT}")
        _require(1 <= self.threads <= MOST_THREADS, "threads", self.threads, f"1 to {MOST_THREADS}")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(str(self.output).isprintable(), "output", str(self.output), "a path without control characters")

    @property
    def tasks(self) -> list[TaskName]:
        """Return the tasks in order, each once."""
        return list(dict.fromkeys(self.task if isinstance(self.task, list) else [self.task]))


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; allowed is {allowed}")
