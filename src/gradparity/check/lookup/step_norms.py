"""The norms of the gradients at each step of a run: enough to tell most faults from a loop with rounding of its own.

A run of which nothing else is recorded takes a third of the time. What it cannot tell apart is compared in full.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradparity.check.lookup.seen_runs import Norms, SeenRun
from gradparity.check.running.loop_end import EndKind, LoopEnd, end_by
from gradparity.check.running.observe import ObservedLoop, UserLoop
from gradparity.faults.stress_scenario import Cast
from gradparity.parity.random_stream import RandomStream, seed_of
from gradparity.parity.state import Part
from gradparity.trace.events import Event
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue
from gradparity.trace.snapshot import TrainingObjects, live_gradients

_MARGIN = 2.0
"""The tolerance is this times the one with which runs are compared in full: norms are computed differently here."""


class _Enough(BaseException):  # no error; and no `except Exception` in a fault may catch it
    """Stops a run whose steps are not those of the loop."""


def norms_of(loop: ObservedLoop) -> list[Norms]:
    """Return the norm of each gradient at each step of a loop."""
    ready = [record.parts[Part.GRADIENTS] for record in loop.trace.records if record.event == Event.READY]
    return [{name: _norm_of_print(value) for name, value in step.items()} for step in ready]


def run_norms(
    loop: UserLoop,
    build: Callable[[str], Cast],
    precision: str,
    expected: Sequence[Norms] | None,
    tolerance: float,
    seed: int = 0,
) -> SeenRun:
    """Run ``loop`` until a step is not as ``expected``, and return the norms of its steps.

    Args:
        loop: the reference with faults; called with everything in the cast, by name.
        build: makes the cast for a precision.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        expected: the norms at each step of the loop that is checked; ``None`` to run to the end.
        tolerance: relative to a norm.
        seed: of the weights and masks.
    """
    steps = list[Norms]()

    def look(optimizer: Optimizer, *_: Any) -> None:
        if optimizer is not cast.optimizer:
            return
        watched.look_again()
        steps.append({name: _norm(p) for name, p in live_gradients(watched)[Part.GRADIENTS].items()})
        if expected is not None and _differs(steps, expected, tolerance):
            raise _Enough

    torch.set_num_threads(1)
    end = LoopEnd()
    with RandomStream(seed_of(seed, "stress")).active(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cast = build(precision)
        watched = TrainingObjects(cast.model, cast.optimizer)
        handle = register_optimizer_step_pre_hook(look)
        try:
            loop(**vars(cast))
        except _Enough:
            end = LoopEnd(EndKind.STOPPED)
        except Exception as error:
            end = end_by(error)
        finally:
            handle.remove()
    return SeenRun(b"", None if end.kind == EndKind.STOPPED else end, norms=tuple(steps))


def may_be_close(run: SeenRun, expected: Sequence[Norms], tolerance: float) -> bool | None:
    """Return whether a run may be close to a loop in all steps; ``None`` if too little of it was seen to know."""
    alike = all(_alike(*both, tolerance) for both in zip(run.norms, expected, strict=False))
    if not alike or len(run.norms) > len(expected):
        return False
    return None if run.end is None else run.end.finished and len(run.norms) == len(expected)


def _differs(steps: Sequence[Norms], expected: Sequence[Norms], tolerance: float) -> bool:
    return len(steps) > len(expected) or not _alike(steps[-1], expected[len(steps) - 1], tolerance)


def _alike(one: Norms, other: Norms, tolerance: float) -> bool:
    if one.keys() != other.keys() or any((value is None) != (other[name] is None) for name, value in one.items()):
        return False
    if not (_all_finite(one) or _all_finite(other)):
        return True  # both overflow; in which elements they do is rounding
    pairs = ((value, other[name]) for name, value in one.items())
    return all(a is None or b is None or _close(a, b, _MARGIN * tolerance) for a, b in pairs)


def _close(a: float, b: float, tolerance: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=tolerance)


def _all_finite(norms: Mapping[str, float | None]) -> bool:
    return all(value is None or math.isfinite(value) for value in norms.values())


def _norm_of_print(value: FingerprintValue) -> float | None:
    return abs(value.norm) if isinstance(value, Fingerprint) else None


def _norm(value: object) -> float | None:
    if not isinstance(value, Tensor):
        return None
    dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
    return float(torch.linalg.vector_norm(dense))
