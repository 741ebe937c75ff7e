"""The judgement on updates that a loop makes itself: the optimizer of PyTorch that makes the same, if one does."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from gradparity.check.intended.own_updates import OwnUpdates
from gradparity.check.running.observe import ObservedLoop
from gradparity.check.updates_and_averages.fitted_updates import Fitted, Move, fit
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Trace
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue
from gradparity.trace.trace_file import read, tensor_of

_FEW = 2
"""Updates that agree by chance: a rule has that many numbers."""


def judged_updates(loop: ObservedLoop, updates: OwnUpdates, folder: Path, thresholds: Sequence[float]) -> str:
    """Return a sentence on the updates of a loop; empty if there are none, or if they cannot be seen.

    Args:
        loop: the loop as it was observed.
        updates: the weights of the loop.
        folder: its trace with all tensors.
        thresholds: norms to which it may clip.
    """
    if not updates.weights:
        return ""
    trace = read(folder)
    first: Mapping[str, FingerprintValue] = next(
        (record.parts[Part.PARAMETERS] for record in trace.records if Part.PARAMETERS in record.parts), {}
    )
    shapes = {name: one.shape for name, one in first.items() if isinstance(one, Fingerprint)}
    fitted = fit(_moves(loop, updates, trace, shapes), updates.numbers, thresholds)
    return "" if fitted is None else _in_words(fitted, list(shapes))


def _in_words(fitted: Fitted, names: Sequence[str]) -> str:
    same = fitted.alike
    if same == len(fitted.errors):
        how = "bit for bit" if fitted.bits else "up to rounding"
        return f"Its updates are those of {fitted}, {how}."
    if same <= _FEW:
        return "Its updates are not those of SGD, Adam or AdamW in torch.optim."
    which = f" of {names[fitted.worst[same]]}" if fitted.worst else ""
    return (
        f"Its first {same} updates are those of {fitted}. The next one{which} differs from it by "
        f"{min(fitted.errors[same], 1):.1%}."
    )


def _moves(loop: ObservedLoop, updates: OwnUpdates, trace: Trace, shapes: dict[str, tuple[int, ...]]) -> list[Move]:
    """Return all updates with the gradients that were there before them; none if some of it was not seen."""
    weights = updates.vectors(sum(torch.Size(shape).numel() for shape in shapes.values()))
    states = weights[:1] + [now for old, now in pairwise(weights) if not torch.equal(old, now)]
    backwards = [r for r in loop.trace.records if r.event == Event.ACCUMULATED]
    kept = [r for r in trace.records if r.event == Event.ACCUMULATED]
    if len(states) != len(loop.moves) + 1 or len(kept) != len(backwards):
        return []
    numbers = {id(record): number for number, record in enumerate(backwards)}
    moves = []
    for (old, now), record in zip(pairwise(states), loop.moves, strict=True):
        there = kept[numbers[id(record)]]
        gradients = [tensor_of(trace, there, Part.GRADIENTS, name) for name in shapes]
        moves.append(Move(_parts(old, shapes), _parts(now, shapes), gradients))
    return moves


def _parts(vector: Tensor, shapes: dict[str, tuple[int, ...]]) -> list[Tensor]:
    parts = vector.split([torch.Size(shape).numel() for shape in shapes.values()])
    return [part.view(shape) for part, shape in zip(parts, shapes.values(), strict=True)]
