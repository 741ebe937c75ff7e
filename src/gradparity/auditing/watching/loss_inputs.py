"""Facts on what a loss was given, read off the graph: probabilities in the place of logits, shapes that were broadcast.

The graph shows which function made the input of a loss, and which dimension it normalized. Nothing is computed.
"""

from enum import Enum, auto
from typing import Any


class Misfit(Enum):
    """An input that does not fit its loss function."""

    SOFTMAX_TWICE = auto()
    """Cross-entropy, which computes a softmax itself, was given the output of one."""
    SIGMOID_TWICE = auto()
    """``binary_cross_entropy_with_logits`` was given the output of a sigmoid or softmax."""
    BOUNDED_SCORES = auto()
    """Cross-entropy was given the output of a sigmoid or ReLU."""
    PROBABILITIES = auto()
    """``nll_loss``, which wants log-probabilities, was given the output of a softmax or sigmoid."""
    RAW_SCORES_FOR_CTC = auto()
    """``ctc_loss``, which wants log-probabilities, was given the output of a linear layer."""
    RAW_SCORES = auto()
    """``nll_loss`` was given the output of a linear layer."""
    ACROSS_SAMPLES = auto()
    """The log-probabilities sum to 1 over another dimension than the one of the classes."""
    ONE_CLASS = auto()
    """A softmax over a single value, which is always 1."""
    OUTER = auto()
    """Prediction and target of shapes such as (N, 1) and (N) were broadcast to (N, N) by the loss function."""
    OUTER_BY_HAND = auto()
    """The same in a difference that the loop computed itself."""


_NLL = ("NllLossBackward0", "NllLoss2DBackward0")
_ERRORS = ("MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0")
_VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "TransposeBackward0", "PermuteBackward0",
          "ToCopyBackward0", "CloneBackward0", "SqueezeBackward0", "SqueezeBackward1", "UnsqueezeBackward0",
          "SliceBackward0", "AliasBackward0", "IndexBackward0", "IndexSelectBackward0")  # fmt: skip
"""Nodes that change no number: they pick or arrange them."""
_LAYERS = ("AddmmBackward0", "MmBackward0", "BmmBackward0", "LinearBackward0", "ConvolutionBackward0")
LOOKED_AT = frozenset((*_NLL, *_ERRORS, "CtcLossBackward0", "LogSoftmaxBackward0", "MeanBackward0",
                       "BinaryCrossEntropyBackward0",
                       "BinaryCrossEntropyWithLogitsBackward0"))  # fmt: skip
"""The nodes that :func:`misfit` knows."""


def misfit(node: Any) -> Misfit | None:
    """Return the misfit of the input of ``node``; ``None`` if it fits, or if it cannot be read."""
    try:
        return _misfit(node.name(), node)
    except (RuntimeError, AttributeError, IndexError, TypeError):  # freed, or of another version of torch
        return None


def _misfit(name: str, node: Any) -> Misfit | None:
    if name in _ERRORS:
        return Misfit.OUTER if _crosses(node._saved_self, node._saved_target) and _grew(_next(node)) else None
    if name == "MeanBackward0":
        return _difference(node)
    source = _source(node)
    made = "" if source is None else source.name()
    if name == "LogSoftmaxBackward0":
        if made == "SoftmaxBackward0":
            return Misfit.SOFTMAX_TWICE
        return Misfit.BOUNDED_SCORES if made in ("SigmoidBackward0", "ReluBackward0") else None
    if name == "BinaryCrossEntropyWithLogitsBackward0":
        return Misfit.SIGMOID_TWICE if made in ("SigmoidBackward0", "SoftmaxBackward0") else None
    if name in _NLL:
        return _of_nll(node, source, made)
    if name == "CtcLossBackward0":
        return Misfit.RAW_SCORES_FOR_CTC if _of_a_layer(source, made) else None
    one = made == "SoftmaxBackward0" and source._saved_result.shape[_dim(source)] == 1
    return Misfit.ONE_CLASS if one else None


def _of_nll(node: Any, source: Any, made: str) -> Misfit | None:
    scores = node._saved_self
    if made in ("SoftmaxBackward0", "SigmoidBackward0"):
        return Misfit.PROBABILITIES
    if _of_a_layer(source, made):
        return Misfit.RAW_SCORES
    if made != "LogSoftmaxBackward0" or _next(node) is not source or scores.dim() < 2:
        return None
    if scores.shape[1] == 1:
        return Misfit.ONE_CLASS
    square = scores.dim() == 2 and scores.shape[0] == scores.shape[1]  # of all pairs: both directions are meant
    return Misfit.ACROSS_SAMPLES if _dim(source) % scores.dim() != 1 and not square else None


def _difference(mean: Any) -> Misfit | None:
    """Return the misfit of ``(a - b).abs().mean()`` or ``((a - b) ** 2).mean()``, if there is one."""
    power = _next(mean)
    if power is None or power.name() not in ("AbsBackward0", "PowBackward0"):
        return None
    minus = _next(power)
    if minus is None or minus.name() != "SubBackward0":
        return None
    sides = [side for side, _ in minus.next_functions if side is not None]
    shape = _shape(minus)
    if len(sides) != 1 or len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2:
        return None
    if sides[0].name() == "ExpandBackward0":
        return Misfit.OUTER if _grew(sides[0]) else None
    return Misfit.OUTER_BY_HAND if _shape(sides[0]) in ((shape[0], 1), (shape[0],)) else None


def _crosses(one: Any, other: Any) -> bool:
    """Return whether two matrices are each repeated along the dimension in which the other is not."""
    if one.dim() != 2 or one.shape != other.shape or min(one.shape) < 2:
        return False
    repeated = [tuple(stride == 0 for stride in t.stride()) for t in (one, other)]
    return sorted(repeated) == [(False, True), (True, False)]


def _grew(expand: Any) -> bool:
    """Return whether an ``expand`` repeated a vector or a column: it came from the loss function's broadcasting."""
    if expand is None or expand.name() != "ExpandBackward0":
        return False
    shape, was = _shape(expand), tuple(expand._saved_self_sym_sizes)
    return len(shape) == 2 and shape[0] == shape[1] and shape[0] > 1 and was in ((shape[0], 1), (shape[0],))


def _shape(node: Any) -> tuple[int, ...]:
    """Return the shape of what ``node`` has computed."""
    return tuple(node._input_metadata[0].shape)


def _dim(node: Any) -> int:
    """Return the dimension that a softmax normalizes; PyTorch hands out a negative one as an unsigned number."""
    dim: int = node._saved_dim
    return dim - 2**64 if dim >= 2**63 else dim


def _next(node: Any) -> Any:
    return node.next_functions[0][0] if node.next_functions else None


def _of_a_layer(node: Any, name: str) -> bool:
    """Return whether a linear layer or convolution made this; one with strided inputs adds its bias apart."""
    if name != "AddBackward0":
        return name in _LAYERS
    sides = [side for side, _ in node.next_functions if side is not None]
    product = _source(node)
    bias = any(hasattr(side, "variable") and side.variable.dim() == 1 for side in sides)
    return bias and product is not None and product.name() in _LAYERS


def _source(node: Any) -> Any:
    """Return the node that computed the input of ``node``, behind views and casts."""
    found = _next(node)
    while found is not None and found.name() in _VIEWS:
        found = _next(found)
    return found
