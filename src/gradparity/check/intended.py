"""The reference that a loop means to be: without a clip, a schedule or windows that the loop never asks for.

A loop says what it means by what it takes and reads. One that takes no ``scheduler`` means to train without a schedule.
One that never reads ``plan.max_norm`` means not to clip, or to clip to a threshold of its own. So the reference is
changed in the same way, and compared with the loop. One that reads ``plan.max_norm`` and does not clip has a fault.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, TypeAlias

from gradparity.check.audited import AuditedLoop
from gradparity.check.observe import ObservedLoop
from gradparity.check.own_optimizers import OwnOptimizer, with_own_optimizers
from gradparity.check.own_rates import learning_rates, with_rates
from gradparity.check.parametric_faults import accumulating, clipping_to, largest_norm, nice
from gradparity.faults import FAULTS, Fault
from gradparity.faults.stress_scenario import ACCUMULATION_STEPS, MAX_NORM, Cast, Plan
from gradparity.parity.state import Part

_SAID, _OWN = "was said to mean this", "trains with optimizers of its own"


@dataclass(frozen=True)
class Intended:
    """A change to the reference that makes it do what a loop means to do, and the change in words."""

    change: Fault
    words: str
    """Such as ``without a clip``."""
    reason: str = ""
    """The sign of what is meant, a predicate on the loop, such as ``takes no scheduler``."""
    unread: str = ""
    """In place of a reason: the field of the plan that the loop never reads."""


def noting(plan: Plan, read: set[str]) -> Plan:
    """Return the same plan, which adds to ``read`` the name of each field that somebody reads."""
    names = {field.name for field in fields(Plan)}

    class NotingPlan(Plan):
        def __getattribute__(self, name: str) -> Any:
            if name == "__dict__":
                read.update(names)
            if name in names:
                read.add(name)
            return super().__getattribute__(name)

    return NotingPlan(**{name: getattr(plan, name) for name in names})


@dataclass(frozen=True)
class Said:
    """The user's word on what the loop means; ``None`` where it is found out."""

    accumulation_steps: int | None = None
    max_norm: float | None = None
    """Infinity for a loop that does not clip."""
    scheduler: bool | None = None


@dataclass(frozen=True)
class Asked:
    """Everything that a loop asks for, by which it says what it means."""

    takes: frozenset[str]
    """The arguments that it takes, by name."""
    read: frozenset[str]
    """The fields of the plan that it reads."""
    own: tuple[OwnOptimizer, ...] = ()
    """The optimizers of its own with which it trains, if it makes no step with the one that it is given."""

    @property
    def unasked(self) -> frozenset[Part]:
        """Return the parts of the state that the loop does not take, so that they need not be the reference's."""
        return frozenset() if "scheduler" in self.takes else frozenset({Part.SCHEDULER})


EVERYTHING = Asked(frozenset(field.name for field in fields(Cast)), frozenset(field.name for field in fields(Plan)))


def intended(asked: Asked, loop: ObservedLoop, audit: AuditedLoop, said: Said) -> list[tuple[Intended, ...]]:
    """Return the sets of changes that the loop may mean, those with most changes first.

    Args:
        asked: everything that the loop asks for.
        loop: the loop as it was observed.
        audit: what an audit has seen of it.
        said: what its user says.
    """
    options = [_optimizers(asked), _schedule(asked, loop, said), _clip(asked, loop, audit.threshold, said)]
    options += [_windows(asked, audit.backwards, said), _epochs(asked)]
    sets = (tuple(one for one in some if one is not None) for some in product(*options))
    return sorted(sets, key=len, reverse=True)


Option: TypeAlias = Intended | None
"""A change, or none."""


def _optimizers(asked: Asked) -> list[Option]:
    if not asked.own:
        return [None]
    kinds = " and ".join(dict.fromkeys(one.kind for one in asked.own))
    words = f"with {kinds} as it builds {'them' if asked.own[1:] else 'it'}"
    return [Intended(with_own_optimizers(asked.own), words, _OWN)]


def _schedule(asked: Asked, loop: ObservedLoop, said: Said) -> list[Option]:
    change = FAULTS["schedule-never-advanced"]
    if said.scheduler is not None:
        return [None if said.scheduler else Intended(change, "without a schedule", _SAID)]
    if asked.own:
        return [Intended(change, "without a schedule", _OWN)]
    if "scheduler" in asked.takes:
        return [None]
    reason = "takes no scheduler"
    rates = learning_rates(loop)
    own = [Intended(with_rates(rates), "with the learning rates that it sets", reason)] if rates else []
    return [Intended(change, "without a schedule", reason), *own, None]


def _clip(asked: Asked, loop: ObservedLoop, threshold: float | None, said: Said) -> list[Option]:
    none = FAULTS["clipping-missing"]
    if said.max_norm == math.inf:
        return [Intended(none, "without a clip", _SAID)]
    if said.max_norm is not None:
        return [_clip_to(said.max_norm, reason=_SAID)]
    if "max_norm" in asked.read:
        return [None]
    without = Intended(none, "without a clip", unread="max_norm")
    if threshold is not None:
        return [_clip_to(threshold, unread="max_norm"), without]
    return [without, *(_clip_to(norm, unread="max_norm") for norm in nice(largest_norm(loop)))]  # it may clip by hand


def _clip_to(norm: float, reason: str = "", unread: str = "") -> Option:
    return None if norm == MAX_NORM else Intended(clipping_to(norm), f"clipped to {norm:g}", reason, unread)


def _windows(asked: Asked, seen: int | None, said: Said) -> list[Option]:
    unasked = said.accumulation_steps is None and "accumulation_steps" not in asked.read
    number = seen if unasked else said.accumulation_steps
    if number in (None, 0, ACCUMULATION_STEPS):
        return [None]
    assert number is not None
    change, words = accumulating(number), f"with {number} microbatch{'es' if number > 1 else ''} a step"
    if not unasked:
        return [Intended(change, words, _SAID)]
    return [Intended(change, words, unread="accumulation_steps"), None]


def _epochs(asked: Asked) -> list[Option]:
    if "epochs" in asked.read:
        return [None]
    return [Intended(FAULTS["one-epoch-missing"], "for one epoch", unread="epochs"), None]


def in_words(changes: Sequence[Intended]) -> str:
    """Return what is changed of the reference, to follow the word reference; empty if nothing is."""
    words = [one.words for one in changes]
    return "" if not words else " " + (", ".join(words[:-1]) + " and " if words[1:] else "") + words[-1]
