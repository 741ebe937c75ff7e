"""Facts of a running loop: one event each, with the user's line that caused it and the gradients around it.

Facts only: nothing is judged here. An event belongs to one optimizer. A backward that reaches the parameters of two
optimizers is an event of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gradparity.auditing.watching.graph_facts import NO_SIGNS, Signs
from gradparity.auditing.watching.loss_inputs import Misfit
from gradparity.auditing.watching.user_lines import Line
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.late_hash import LateHash

GradientLook: TypeAlias = Sequence[Fingerprint | None]
"""A fingerprint of the gradient of each parameter of one optimizer, in the order of its groups."""


@dataclass(frozen=True)
class LossWeights:
    """The weight of single tokens (samples, pixels) in what is differentiated, read off the graph at one loss node."""

    node: str
    """The node of autograd's graph, such as ``NllLossBackward0``."""
    tokens: int
    """The number of elements that have a weight: those not ignored and not masked."""
    elements: int
    """The number of all elements of the loss, padding included."""
    weight: float | None
    """The derivative by the loss of one token, without the loss scale; ``None`` if tokens weigh differently."""
    total: float
    """The sum of all tokens' weights: 1 for a mean, without the loss scale."""
    mean: bool = False
    """True if the loss function itself divided by its number of tokens (``reduction="mean"``)."""
    half: bool = False
    """True if the loss was computed in half precision."""
    weighted: bool = False
    """True if the loss has weights by class or by element."""
    padding: int = 0
    """The number of tokens whose target is the ``padding_idx`` of an embedding in the graph, of the same vocabulary."""
    in_runs: int = 0
    """The number of these that follow one another."""


@dataclass(frozen=True)
class Modes:
    """The modes of the models that an optimizer trains, when a backward begins."""

    in_train: bool
    """True if each of these models, as a whole, is in training mode."""
    evaluating: int
    """The number of layers in evaluation that behave differently in it (dropout, batch normalization)."""
    counted: int = 0
    """The number of batches that all layers of batch normalization have counted together."""
    norms: int = 0
    """The number of these layers."""
    silenced: int = 0
    """The number of dropout layers whose own ``eval()`` was called, in a model that trains."""
    asking: int = 0
    """The number of modules in evaluation whose own ``forward`` reads ``self.training``, as for ``F.dropout``."""


@dataclass(frozen=True)
class Written:
    """The ways in which the gradients of one ``autograd.grad`` have arrived in ``p.grad``."""

    overwritten: int = 0
    """Those that replaced a gradient instead of being added to it."""
    swapped: int = 0
    """Those that hold the bits of another parameter's gradient."""
    dropped: int = 0
    """Those that are not there at all, though they are not zero."""
    other: int = 0
    """Those that hold neither the gradient nor its sum with what was there."""
    zeros: int = 0
    """Those that were ``None`` and are zeros now."""


@dataclass(frozen=True)
class Backward:
    """A call of ``backward``, or of ``autograd.grad`` for parameters of the optimizer."""

    into_grad: bool
    """True for ``backward``; false for ``autograd.grad``, which returns the gradients."""
    scales: tuple[float, ...]
    """The loss scales that the graph contains: none, one, or more if the loss was scaled twice."""
    losses: tuple[LossWeights, ...]
    reaches: frozenset[int]
    """The optimizers that hold a parameter which this backward reaches, by their number."""
    inside_step: bool
    """True if it runs in a closure that ``step`` calls."""
    weights: str | LateHash
    """A digest of the optimizer's parameters at the beginning of the backward."""
    modes: "Modes | None" = None
    written: "Written | None" = None
    """After ``autograd.grad``: how the loop has written the gradients to ``p.grad``."""
    again: bool = False
    """True if the same loss was differentiated before."""
    same_forward: bool = False
    """True if its graph holds results of a forward that a backward has passed before, and kept."""
    half: bool = True
    """True if the graph holds numbers of half precision, or casts to it."""
    shared: int = 0
    """The number of gradients that share their memory with the one of another parameter, after the backward."""
    signs: Signs = NO_SIGNS
    loss: str | LateHash = ""
    """A digest of what is differentiated."""
    exchange: bool | None = None
    """True if DDP exchanges the gradients between ranks; ``None`` if the process trains alone."""
    resting: frozenset[int] = frozenset()
    """The optimizers of which no parameter requires a gradient at this moment, by their number."""
    misfits: tuple[Misfit, ...] = ()
    """Inputs that do not fit their loss function."""


@dataclass(frozen=True)
class ZeroGrad:
    """The gradients were emptied, by ``zero_grad`` of the optimizer or of a module."""

    by_optimizer: bool = False


@dataclass(frozen=True)
class Unscale:
    """``scaler.unscale_`` was called."""

    scale: float


@dataclass(frozen=True)
class ClipCalled:
    """A clip function of ``torch.nn.utils`` was called with gradients of the optimizer."""

    threshold: float | None
    """``max_norm`` or ``clip_value``; ``None`` if it cannot be read."""
    by_value: bool
    covered: int
    """The number of the optimizer's gradients that it was given; 0 if it was given none of any optimizer."""
    twice: int = 0
    """The number of these that it was given more than once."""
    norm_type: float = 2.0
    given_any: bool = True
    """False if it was given no parameter at all, as by a generator that was used up before."""


@dataclass(frozen=True)
class StepMade:
    """The optimizer made a step, or its scaler skipped it."""

    skipped: bool
    scaler: int | None
    """The number of the scaler whose ``step`` made it; ``None`` if the loop called the optimizer's ``step``."""
    scale: float | None
    weights_before: str | LateHash
    weights_after: str | LateHash
    rates: tuple[float, ...]
    """The learning rate of each group."""
    closure: bool = False
    state_before: str | LateHash = ""
    """A digest of the optimizer's own state, such as its moments."""
    state_after: str | LateHash = ""
    tracker: int | None = None  # the steps since the scaler's last overflow or growth
    loaded: bool = False
    """True if ``load_state_dict`` has written weights since the step before."""
    resumed: bool = False
    """True if the optimizer's own ``load_state_dict`` was called since the step before."""
    frozen: frozenset[int] = frozenset()
    """The positions of the parameters that required no gradient at the step."""
    unread: float | None = None
    """A learning rate that the loop set on an optimizer of PyTorch outside its groups, where no step reads it."""


@dataclass(frozen=True)
class Update:
    """``scaler.update`` was called."""

    scaler: int
    before: float
    after: float
    tracker: int = 0


@dataclass(frozen=True)
class Schedule:
    """A learning rate scheduler of the optimizer made a step."""

    name: str
    count: int = 0
    """Its own count of steps."""
    rates: tuple[float, ...] = ()
    """The learning rate of each group after it."""
    scheduler: int = 0  # its own number
    each_step: bool = False
    """True for a scheduler that is made to run after each optimizer step, as ``OneCycleLR``."""
    past_end: bool = False
    """True for a cosine that has passed its end, from where on the rate rises again."""
    lowered: bool = False
    """True if its step made the rate of each group smaller."""


What: TypeAlias = Backward | ZeroGrad | Unscale | ClipCalled | StepMade | Update | Schedule


@dataclass(frozen=True)
class LoopEvent:
    """One event of one optimizer."""

    what: What
    number: int
    """Its position among all events of the process."""
    line: Line
    before: GradientLook = ()
    after: GradientLook = ()
    random: str = ""
    """A digest of the state of the CPU's random numbers."""
