"""All facts of one run: the story of each optimizer, and what belongs to no single one."""

from dataclasses import dataclass, field

from gradparity.auditing.events import LoopEvent
from gradparity.auditing.watching.frozen_batch_norms import Unfrozen
from gradparity.auditing.watching.graph_facts import AverageMove, InputGradient
from gradparity.auditing.watching.parameters_without_optimizer import NotFrozen, Outsider
from gradparity.auditing.watching.samplers import Pass
from gradparity.auditing.watching.user_lines import Line, Raised


@dataclass
class Story:
    """Everything that happened to one optimizer, in order."""

    number: int
    name: str
    """The class of the optimizer."""
    made: Line
    """The line that built it."""
    events: list[LoopEvent] = field(default_factory=list)
    steps: int = 0
    """The number of steps among them, made or skipped."""
    by_torch: bool = False
    """True if the optimizer is one of PyTorch's."""
    names: tuple[str, ...] = ()
    """The name of each parameter, in the order of the groups."""
    trained: tuple[bool, ...] = ()
    """For each parameter, whether it requires a gradient."""
    shapes: tuple[tuple[int, ...], ...] = ()
    loose: bool = False
    """True if none of its parameters is in a module that is known, such as an image that is optimized."""
    groups: tuple[dict[str, object], ...] = ()
    """The hyperparameters of each group, without its parameters."""
    dimensions: tuple[tuple[int, ...], ...] = ()  # of each parameter of each group
    replicated: tuple[bool, ...] = ()
    """For each parameter, whether DDP promises the same gradient on all ranks."""
    sharded: tuple[bool, ...] = ()
    """For each parameter, whether this rank holds only a part of it."""


@dataclass(frozen=True)
class Retrained:
    """A module that the loop had put into evaluation, and that a ``train()`` of a module around it put back."""

    name: str
    evaluated: Line
    """The line of its ``eval()``."""
    trained: Line
    """The line of the ``train()`` that reached it."""
    backwards: int
    """The number of backwards since, with the module still in training mode."""


@dataclass(frozen=True)
class OwnLoad:
    """A ``load_state_dict`` that gave a model nothing but its own tensors."""

    name: str
    """The class of the model."""
    line: Line


@dataclass
class RunFacts:
    """All facts of one run."""

    stories: list[Story] = field(default_factory=list)
    outsiders: list[Outsider] = field(default_factory=list)
    raised: Raised | None = None
    retrained: list[Retrained] = field(default_factory=list)
    not_frozen: list[NotFrozen] = field(default_factory=list)
    norms: list[Unfrozen] = field(default_factory=list)
    loads: list[OwnLoad] = field(default_factory=list)
    scalers: list[Line] = field(default_factory=list)
    """The line that built each gradient scaler, in order."""
    schedulers: list[tuple[int, str, Line]] = field(default_factory=list)
    """Each learning rate scheduler that was built: the number of its optimizer, its class, and the line."""
    averages: list[AverageMove] = field(default_factory=list)
    """Each move of an average of the weights, in order."""
    input_gradients: list[InputGradient] = field(default_factory=list)
    """Each gradient of an input that was taken without a graph, in order."""
    let_go: bool = False
    """True if the watching ended before the loop did."""
    passes: list[Pass] = field(default_factory=list)
    """Passes of distributed samplers over their data, in order."""
    world: int = 1
    """The number of ranks in the process group."""
    notes: list[str] = field(default_factory=list)
    """Things that were not seen, one sentence each."""
    recorded: bool = False
    """True if the facts are those of a trace, which holds no lines and no weights of tokens."""
