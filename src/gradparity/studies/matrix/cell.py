"""The axes of the matrix, and the combinations that cannot be run, each with its reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import Any, cast

from gradparity.processes.determinism import Device
from gradparity.studies.matrix import refused_by_torch

TASK_NAMES = (
    "digits_mlp", "digits_cnn", "transformer", "gru", "lstm", "sparse", "branches", "additive", "matrices", "gan",
    "penalty", "checkpointed", "reentrant", "channels_last", "compiled",
)  # fmt: skip
PRECISION_NAMES = ("fp64", "fp32", "bf16", "fp16")
MICROBATCH_COUNTS = (1, 2, 3, 4, 8)
CLIP_NAMES = ("none", "norm", "value", "error_if_nonfinite")
SCHEDULE_NAMES = ("cosine", "one_cycle", "plateau")
AVERAGE_NAMES = ("no average", "EMA")

_FOREACH = (
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD",
)  # fmt: skip
_FUSED = ("Adagrad", "Adam", "AdamW", "SGD")
OPTIMIZER_NAMES = (
    *_FOREACH,
    *(f"{name} foreach" for name in _FOREACH),
    *(f"{name} fused" for name in _FUSED),
    "LBFGS",
    "Muon",
    "SparseAdam",
)
"""Optimizers of torch.optim, by name and implementation. No implementation: PyTorch's default, a for-loop on CPU."""


@dataclass(frozen=True, kw_only=True)
class MatrixCell:
    """One combination of values, one for each axis."""

    task: str = "digits_mlp"
    precision: str = "fp32"
    optimizer: str = "AdamW"
    schedule: str = "cosine"
    average: str = "no average"
    clip: str = "norm"
    k: int = 3

    def __str__(self) -> str:
        axes = (self.task, self.precision, self.optimizer, self.schedule, self.average, self.clip, f"K={self.k}")
        return " · ".join(axes)


AXES: dict[str, tuple[Any, ...]] = {
    "task": TASK_NAMES,
    "precision": PRECISION_NAMES,
    "optimizer": OPTIMIZER_NAMES,
    "schedule": SCHEDULE_NAMES,
    "average": AVERAGE_NAMES,
    "clip": CLIP_NAMES,
    "k": MICROBATCH_COUNTS,
}

UNDECIDED: Any = None
"""An axis not chosen yet, in an incomplete cell; it is never a reason for a refusal."""


def refusal(cell: MatrixCell, device: Device = "cpu") -> str | None:
    """Return the reason that ``cell`` cannot run on ``device``, or ``None``. If PyTorch refuses it, quote PyTorch.

    Except for reentrant checkpointing, a refused cell cannot run by either route. A test checks for every cell that it
    is refused if and only if training it raises.
    """
    if cell.optimizer == "LBFGS" and cell.task == "gan":
        return "LBFGS searches along one loss, and a GAN has two"
    if cell.optimizer == "LBFGS" and cell.precision == "fp16" and (why := refused_by_torch.a_closure(device)):
        return why
    if UNDECIDED not in (cell.task, cell.optimizer) and (
        why := refused_by_torch.a_step(cell.optimizer, gradient_kind(cell), device)
    ):
        return why
    if cell.task == "reentrant":
        return refused_by_torch.reentrant_grad()
    if cell.task == "sparse" and cell.clip not in ("none", UNDECIDED):
        return refused_by_torch.a_clip(cell.clip, device)
    return None


def gradient_kind(cell: MatrixCell) -> refused_by_torch.Gradients:
    """Return the kind of gradients that the optimizer of ``cell`` gets."""
    match cell.task:
        case "sparse" | "matrices" | "channels_last":
            return cast("refused_by_torch.Gradients", cell.task)
        case _:
            return "dense"


def product_of(**wanted: tuple[Any, ...]) -> Iterator[MatrixCell]:
    """Yield every combination of the values in ``wanted``; axes that it does not name have their defaults.

    For sparse gradients, which the usual defaults refuse, the defaults are SparseAdam and no clipping.
    """
    for values in product(*wanted.values()):
        chosen = dict(zip(wanted, values, strict=True))
        if chosen.get("task") == "sparse":
            chosen = {"optimizer": "SparseAdam", "clip": "none"} | chosen
        yield MatrixCell(**chosen)


def full_cells() -> list[MatrixCell]:
    """Return thousands of cells, refused ones included: each axis with the axes it could interact with.

    The product of all axes has 223,200 cells; at 0.1 s each, that is three hours on two cores.
    """
    everywhere = {"precision": PRECISION_NAMES, "k": MICROBATCH_COUNTS}
    some = ("none", "norm")
    return list(
        dict.fromkeys(
            chain(
                product_of(task=TASK_NAMES, clip=CLIP_NAMES, **everywhere),
                product_of(task=TASK_NAMES, schedule=SCHEDULE_NAMES, average=AVERAGE_NAMES, clip=some, **everywhere),
                product_of(optimizer=OPTIMIZER_NAMES, clip=CLIP_NAMES, **everywhere),
                product_of(task=TASK_NAMES, optimizer=OPTIMIZER_NAMES, precision=PRECISION_NAMES, clip=some),
                product_of(
                    optimizer=OPTIMIZER_NAMES, schedule=SCHEDULE_NAMES, average=AVERAGE_NAMES, precision=PRECISION_NAMES
                ),
            )
        )
    )


def pairwise_cells() -> list[MatrixCell]:
    """Return a few hundred cells in which any two values of two axes meet, unless every such cell is refused.

    Greedy: each cell starts from a pair that is still missing. Axis by axis, it then takes the value that covers the
    most missing pairs.
    """
    nothing = dict.fromkeys(AXES, UNDECIDED)
    values = [(axis, value) for axis in AXES for value in AXES[axis]]
    wanted = [frozenset(pair) for pair in combinations(values, 2) if len(dict(pair)) == 2]
    missing, cells = set(wanted), list[MatrixCell]()
    for pair in wanted:
        if pair not in missing:
            continue
        chosen = nothing | dict(pair)
        for axis in (axis for axis in AXES if chosen[axis] is UNDECIDED):
            allowed = [v for v in AXES[axis] if refusal(MatrixCell(**chosen | {axis: v})) is None]
            if not allowed:
                break
            chosen[axis] = max(allowed, key=lambda v: len(missing & pairs_of(chosen | {axis: v})))
        if refusal(cell := MatrixCell(**chosen)) is None and UNDECIDED not in chosen.values():
            cells.append(cell)
            missing -= pairs_of(chosen)
    return cells


def pairs_of(chosen: dict[str, Any]) -> set[frozenset[tuple[str, Any]]]:
    """Return every pair of decided values in ``chosen``, each value with its axis."""
    decided = [(axis, value) for axis, value in chosen.items() if value is not UNDECIDED]
    return {frozenset(pair) for pair in combinations(decided, 2)}
