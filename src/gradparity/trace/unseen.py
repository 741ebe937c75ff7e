"""What a recording has not seen, or not all of, in a sentence each: a trace that is silent about it would mislead."""

from collections import Counter
from dataclasses import dataclass, field

from torch.optim import Optimizer

from gradparity.errors import UserError
from gradparity.trace.autograd_graph import Reach
from gradparity.trace.snapshot import Watched


@dataclass
class Lacks:
    """Counts what passes by, and says at the end what of it is not in the trace."""

    fault: Exception | None = None
    """The error that has ended the recording before the loop ended."""
    backwards: Counter[Reach] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    """How many steps other optimizers have made with parameters of the watched one, by their class."""
    composed: set[int] = field(default_factory=set)
    """Identities of the optimizers within whose steps the watched one makes its own."""
    sentences: list[str] = field(default_factory=list)

    def step_of(self, other: Optimizer, watched: Watched) -> None:
        """Count a step of another optimizer, if it trains what the watched one is there for."""
        ours = watched.trained()
        if ours.isdisjoint(watched.of_model()):
            ours = watched.of_model()
        if id(other) not in self.composed and not ours.isdisjoint(_held(other)):
            self.others[type(other).__name__] += 1

    def look_back(self, steps: int, watched: Watched, skipped: int) -> None:
        """Say what is missing, at the end of a loop in which the watched optimizer made some ``steps``."""
        if not steps:
            self.sentences.append(
                "it has seen no step of the optimizer that it was given, so nothing in it was compared after a step"
            )
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
                f"no backward, of {self.backwards.total()}, reached a parameter of the model or the optimizer"
            )
        if skipped:
            self.sentences.append("what was captured in a CUDA graph is not seen")

    def all(self) -> list[str]:
        """Return all of it, the error first."""
        return ([f"the recording ended before the loop did: {self.of_fault()}"] if self.fault else []) + self.sentences

    def of_fault(self) -> str:
        """Return what the error was, on one line."""
        said = " ".join(str(self.fault).split())
        return said if isinstance(self.fault, UserError) else f"{type(self.fault).__name__}: {said}"


def _held(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
