"""Sentences on events that a recording missed, fully or in part; without them a trace would mislead."""

from collections import Counter
from dataclasses import dataclass, field

from torch.optim import Optimizer

from gradparity.errors import UserError
from gradparity.trace.autograd_graph import Reach
from gradparity.trace.snapshot import TrainingObjects


@dataclass
class Lacks:
    """Counts events of the loop, and at the end reports which of them are not in the trace."""

    fault: Exception | None = None
    """The error that ended the recording before the loop ended."""
    backwards: Counter[Reach] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    """The number of steps that other optimizers made with parameters of the watched one, by their class."""
    composed: set[int] = field(default_factory=set)
    """The ``id`` of each optimizer whose steps contain steps of the watched one."""
    sentences: list[str] = field(default_factory=list)

    def step_of(self, other: Optimizer, watched: TrainingObjects) -> None:
        """Count a step of ``other`` if it holds parameters that the watched optimizer trains.

        If the watched optimizer trains none of the model's parameters, compare with the model's parameters instead.
        """
        ours = watched.trained()
        if ours.isdisjoint(watched.of_model()):
            ours = watched.of_model()
        if id(other) not in self.composed and not ours.isdisjoint(_held(other)):
            self.others[type(other).__name__] += 1

    def look_back(self, steps: int, watched: TrainingObjects, skipped: int) -> None:
        """Add sentences on missing events, at the end of a loop with ``steps`` steps of the watched optimizer."""
        if not steps:
            self.sentences.append("it saw no step of the given optimizer, so it holds no values after a step")
        if watched.trained().isdisjoint(watched.of_model()):
            self.sentences.append(
                "the optimizer holds none of the model's parameters; make it after the model is copied or wrapped"
            )
        for kind, times in self.others.items():
            self.sentences.append(
                f"another optimizer ({kind}) made {times} step{'s' if times > 1 else ''} with the same parameters; "
                "record that one"
            )
        if self.backwards and not self.backwards.keys() - {Reach.NO}:
            self.sentences.append(
                f"no backward ({self.backwards.total()} in all) reached a parameter of the model or the optimizer"
            )
        if skipped:
            self.sentences.append("calls captured in a CUDA graph are missing")

    def all(self) -> list[str]:
        """Return all sentences, the error first."""
        return ([f"the recording ended before the loop did: {self.of_fault()}"] if self.fault else []) + self.sentences

    def of_fault(self) -> str:
        """Return the error as one line of text."""
        said = " ".join(str(self.fault).split())
        return said if isinstance(self.fault, UserError) else f"{type(self.fault).__name__}: {said}"


def _held(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
