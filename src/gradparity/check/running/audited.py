"""An audit of the loop that is checked: what it does in a step, and what is wrong in which line."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from gradparity.auditing.finding import RuleFinding
from gradparity.auditing.rules import judge
from gradparity.auditing.rules.schedules import NEVER_STEPPED
from gradparity.auditing.step_windows import StepWindow, windows
from gradparity.auditing.watching.watch import Watch
from gradparity.faults.stress_scenario import Cast
from gradparity.parity.random_stream import RandomStream, seed_of
from gradparity.parity.state import Part

_STEPS = 100
"""More steps than the stress scenario has, with one microbatch a step."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class AuditedLoop:
    """Everything that an audit has seen of a loop."""

    findings: tuple[RuleFinding, ...] = ()
    backwards: int | None = None
    """The number of backwards in most steps; ``None`` if no step was made."""
    threshold: float | None = None
    """The threshold of most calls of a clip by norm; ``None`` without one."""
    steps: int = 0
    """The number of steps."""


def audited(
    loop: Callable[..., Any],
    build: Callable[[str], Cast],
    precision: str,
    unasked: frozenset[Part],
    takes_optimizer: bool = True,
) -> AuditedLoop:
    """Run a loop, which is known to end, under the stress scenario, and audit it.

    Args:
        loop: called with everything in the cast, by name.
        build: makes the cast for a precision.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        unasked: parts of the state that the loop does not take: nothing is wrong if it leaves them alone.
        takes_optimizer: whether it takes the optimizer; if not, the parameters in it may still be in none of its own.
    """
    watch = Watch(_STEPS)
    with RandomStream(seed_of(0, "stress")).active(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cast = build(precision)
        if takes_optimizer:
            watch.add(cast.optimizer, cast.model)
        else:
            watch.modules.add(cast.model)
        with watch.watching():
            loop(**vars(cast))
    facts = watch.facts()
    if watch.fault is not None:
        return AuditedLoop()
    steps = [window for story in facts.stories for window in windows(story) if window.made is not None]
    return AuditedLoop(
        tuple(f for f in judge(facts) if not (f.rule is NEVER_STEPPED and Part.SCHEDULER in unasked)),
        _most_common(len(window.backwards) for window in steps),
        _most_common(threshold for window in steps for threshold in _thresholds(window)),
        len(steps),
    )


def _thresholds(window: StepWindow) -> list[float]:
    return [clip.threshold for _, clip in window.clips if clip.threshold is not None and not clip.by_value]


def _most_common(values: Iterable[Value]) -> Value | None:
    return next((value for value, _ in Counter(values).most_common(1)), None)
