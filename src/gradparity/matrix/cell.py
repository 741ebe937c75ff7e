"""The axes of the matrix, and the combinations that PyTorch itself refuses, each with its reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import Any

TASKS = (
    "digits_mlp", "digits_cnn", "transformer", "gru", "lstm", "sparse", "branches", "additive", "matrices", "gan",
    "penalty", "checkpointed", "reentrant", "channels_last", "compiled",
)  # fmt: skip
PRECISIONS = ("fp64", "fp32", "bf16", "fp16")
ACCUMULATION_STEPS = (1, 2, 3, 4, 8)
CLIPS = ("none", "norm", "value", "error_if_nonfinite")
SCHEDULES = ("cosine", "one_cycle", "plateau")
AVERAGES = ("no average", "EMA")

FOREACH = (
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD",
)  # fmt: skip
FUSED = ("Adagrad", "Adam", "AdamW", "SGD")
OPTIMIZERS = (
    *FOREACH,
    *(f"{name} foreach" for name in FOREACH),
    *(f"{name} fused" for name in FUSED),
    "LBFGS",
    "Muon",
    "SparseAdam",
)
"""Of torch.optim, by name and implementation; without one, PyTorch's default, a for-loop on CPU."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination."""

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
    "task": TASKS,
    "precision": PRECISIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "average": AVERAGES,
    "clip": CLIPS,
    "k": ACCUMULATION_STEPS,
}

UNDECIDED: Any = None
"""In a cell that is not complete yet: whatever it will be, it is no reason for a refusal."""


def refusal(cell: Cell) -> str | None:
    """Why ``cell`` cannot be run, whichever way ``p.grad`` is filled, or ``None``; tests show that it cannot."""
    name, _, implementation = (cell.optimizer or "").partition(" ")
    sparse, fused = cell.task == "sparse", implementation == "fused"
    if cell.task == "reentrant":
        return "reentrant checkpointing refuses autograd.grad"
    if sparse and name and (name not in ("SGD", "SparseAdam", "Adagrad") or implementation):
        return f"{cell.optimizer} takes no sparse gradients"
    if sparse and cell.clip not in ("none", UNDECIDED):
        return "sparse gradients cannot be clipped"
    if name == "SparseAdam" and cell.task not in ("sparse", UNDECIDED):
        return "SparseAdam takes nothing but sparse gradients"
    if name == "Muon" and cell.task not in ("matrices", UNDECIDED):
        return "Muon takes nothing but matrices"
    if name == "LBFGS" and cell.precision == "fp16":
        return "GradScaler takes no closure, which LBFGS needs"
    if cell.task == "gan" and (name == "LBFGS" or cell.schedule == "plateau"):
        return "a GAN's two networks have no common loss to search or to wait for"
    if fused and name == "SGD" and cell.task == "branches":
        return "fused SGD with momentum needs every gradient at its first step"
    return None


def product_of(**wanted: tuple[Any, ...]) -> Iterator[Cell]:
    """Every combination of the values that ``wanted`` names, with the defaults for axes that it does not."""
    for values in product(*wanted.values()):
        yield Cell(**dict(zip(wanted, values, strict=True)))


def full() -> list[Cell]:
    """Thousands of cells: each axis against those that it could interact with. What is refused is among them."""
    everywhere = {"precision": PRECISIONS, "k": ACCUMULATION_STEPS}
    return list(
        dict.fromkeys(
            chain(
                product_of(task=TASKS, clip=CLIPS, **everywhere),
                product_of(task=TASKS, schedule=SCHEDULES, average=AVERAGES, clip=("none", "norm"), **everywhere),
                product_of(optimizer=OPTIMIZERS, clip=CLIPS, **everywhere),
                product_of(task=TASKS, optimizer=OPTIMIZERS, schedule=SCHEDULES, clip=("none", "norm")),
            )
        )
    )


def pairwise() -> list[Cell]:
    """A few hundred cells in which any two values of two axes meet, if there is a cell in which they can.

    Greedy: each cell starts from a pair that is still missing and takes, axis by axis, the value that brings most of
    the others along.
    """
    nothing = dict.fromkeys(AXES, UNDECIDED)
    values = [(axis, value) for axis in AXES for value in AXES[axis]]
    wanted = [frozenset(pair) for pair in combinations(values, 2) if len(dict(pair)) == 2]
    missing, cells = set(wanted), list[Cell]()
    for pair in wanted:
        if pair not in missing:
            continue
        chosen = nothing | dict(pair)
        for axis in (axis for axis in AXES if chosen[axis] is UNDECIDED):
            allowed = [v for v in AXES[axis] if refusal(Cell(**chosen | {axis: v})) is None]
            if not allowed:
                break
            chosen[axis] = max(allowed, key=lambda v: len(missing & pairs_of(chosen | {axis: v})))
        if refusal(cell := Cell(**chosen)) is None and UNDECIDED not in chosen.values():
            cells.append(cell)
            missing -= pairs_of(chosen)
    return cells


def pairs_of(chosen: dict[str, Any]) -> set[frozenset[tuple[str, Any]]]:
    """Every pair of an axis and its value that ``chosen`` brings together."""
    decided = [(axis, value) for axis, value in chosen.items() if value is not UNDECIDED]
    return {frozenset(pair) for pair in combinations(decided, 2)}
