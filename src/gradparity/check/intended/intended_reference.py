"""The reference that a loop means to be: without a clip, a schedule or windows that the loop never asks for.

A loop says what it means by what it takes and reads. One that takes no ``scheduler`` means to train without a schedule.
One that never reads ``plan.max_norm`` means not to clip, or to clip to a threshold of its own. So the reference is
changed in the same way, and compared with the loop. One that reads ``plan.max_norm`` and does not clip has a fault.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, TypeAlias

from gradparity.auditing.watching.user_lines import of_the_user
from gradparity.check.intended.meant_numbers import meant_norm, meant_steps
from gradparity.check.intended.own_draws import OwnDraws, with_own_draws, with_own_order
from gradparity.check.intended.own_freezing import frozen, with_frozen
from gradparity.check.intended.own_learning_rates import OWN_RATES, learning_rates, with_rates
from gradparity.check.intended.own_optimizers import OwnOptimizer, with_own_optimizers
from gradparity.check.intended.own_scaler import WITHOUT_SCALER, OwnScaler, with_own_scaler
from gradparity.check.intended.own_updates import OwnUpdates, with_own_updates
from gradparity.check.lookup.parametric_faults import largest_norm, nice
from gradparity.check.running.audited import AuditedLoop
from gradparity.check.running.observe import ObservedLoop, backwards_a_move
from gradparity.faults import FAULTS, Change
from gradparity.faults.stress_scenario import ACCUMULATION_STEPS, MAX_NORM, Cast, Plan
from gradparity.parity.likely_cause import listed
from gradparity.parity.state import Part

NORM = "--max-norm NORM"
"""The option for a loop that means to clip by norm."""
_SAID, _OWN = "was said to mean this", "trains with optimizers of its own"


@dataclass(frozen=True)
class Intended:
    """A change to the reference that makes it do what a loop means to do, and the change in words."""

    change: Change
    words: str
    """Such as ``without a clip``."""
    reason: str = ""
    """The sign of what is meant, a predicate on the loop, such as ``takes no scheduler``."""
    unread: str = ""
    """In place of a reason: the field of the plan that the loop never reads."""
    option: str = ""
    """The option by which the user says that the loop means something else, such as ``--max-norm NORM``."""
    in_fp32: Change | None = None
    """The change in fp32, if it is a different one: there no step is skipped."""


def noting(plan: Plan, read: set[str]) -> Plan:
    """Return the same plan, which adds to ``read`` the name of each field that somebody reads."""
    names = {field.name for field in fields(Plan)}

    class NotingPlan(Plan):
        def __getattribute__(self, name: str) -> Any:
            if name == "__dict__":
                read.update(names - {"ema_decay"})
            if name in names and (name != "ema_decay" or of_the_user(sys._getframe(1).f_code.co_filename)):
                read.add(name)  # a copy of the plan reads that too, which says nothing of an average
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
    own_in_fp32: tuple[OwnOptimizer, ...] = ()
    """The same in fp32, where no step is skipped, so that a schedule advances at other steps."""
    updates: OwnUpdates = OwnUpdates()  # noqa: RUF009  # it is frozen
    """Its updates, if no optimizer makes them that can be built again."""
    updates_in_fp32: OwnUpdates = OwnUpdates()  # noqa: RUF009  # it is frozen
    own_scaler: OwnScaler | None = None
    """The loss scaler of its own that makes its steps."""
    batches: int = 0
    """The number of batches that it takes; one that it takes again, as for a second backward, counts once."""
    draws: OwnDraws = OwnDraws()  # noqa: RUF009  # it is frozen
    """Its order of the batches and its random numbers, where they are not the reference's."""

    @property
    def trains_elsewhere(self) -> bool:
        """Return whether it trains the given model, without the optimizer that it was given."""
        return bool(self.own or self.updates.weights)

    @property
    def unasked(self) -> frozenset[Part]:
        """Return the parts of the state that the loop does not take, so that they need not be the reference's."""
        parts = {"scheduler": Part.SCHEDULER, "scaler": Part.SCALER}
        own = {Part.PARAMETERS} if self.updates.weights else set()
        return frozenset(own | {part for name, part in parts.items() if name not in self.takes})


EVERYTHING = Asked(frozenset(field.name for field in fields(Cast)), frozenset(field.name for field in fields(Plan)))


def intended(
    asked: Asked, loop: ObservedLoop, in_fp32: ObservedLoop, audit: AuditedLoop, said: Said, precision: str
) -> list[tuple[Intended, ...]]:
    """Return the sets of changes that the loop may mean, those with most changes first.

    Args:
        asked: everything that the loop asks for.
        loop: the loop as it was observed.
        in_fp32: the same in fp32.
        audit: what an audit has seen of it.
        said: what its user says.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
    """
    seen = audit.backwards or backwards_a_move(loop)
    options = [_optimizers(asked), _schedule(asked, loop, in_fp32, said), _clip(asked, loop, audit.threshold, said)]
    options += [
        _windows(asked, seen, audit.steps or asked.updates.number, said),
        _epochs(asked),
        _scaler(asked, precision),
        _freezing(loop),
        *_draws(asked.draws),
    ]
    sets = (tuple(one for one in some if one is not None) for some in product(*options))
    return sorted(sets, key=len, reverse=True)


Option: TypeAlias = Intended | None
"""A change, or none."""


def _optimizers(asked: Asked) -> list[Option]:
    if asked.updates.weights:
        return [_updates(asked)]
    if not asked.own:
        return [None]
    kinds, they = " and ".join(dict.fromkeys(one.kind for one in asked.own)), "them" if asked.own[1:] else "it"
    schedules = " and schedules" if any(one.steps for one in asked.own) else ""
    words = f"with {kinds} as it builds{schedules} {they}"
    return [Intended(with_own_optimizers(asked.own), words, _OWN, in_fp32=with_own_optimizers(asked.own_in_fp32))]


def _updates(asked: Asked) -> Intended:
    by = asked.updates.by
    words = f"with the updates that its {listed(list(by))} makes" if by else "with the updates that it writes out"
    reason = _OWN if by else "makes its updates without an optimizer of PyTorch"
    change, in_fp32 = with_own_updates(asked.updates), with_own_updates(asked.updates_in_fp32)
    return Intended(change, words, reason, in_fp32=in_fp32)


def _schedule(asked: Asked, loop: ObservedLoop, in_fp32: ObservedLoop, said: Said) -> list[Option]:
    change = FAULTS["schedule-never-advanced"]
    if said.scheduler is not None:
        return [None if said.scheduler else Intended(change, "without a schedule", _SAID)]
    if asked.own:
        return [Intended(change, "without a schedule", _OWN)]
    if "scheduler" in asked.takes:
        return [None]
    reason, given = "takes no scheduler", "--scheduler given"
    options: list[Option] = [Intended(change, "without a schedule", reason, option=given), None]
    if rates := learning_rates(loop):
        changes = with_rates(rates), with_rates(learning_rates(in_fp32))
        options.insert(1, Intended(changes[0], OWN_RATES, reason, option=given, in_fp32=changes[1]))
    return options


def _clip(asked: Asked, loop: ObservedLoop, threshold: float | None, said: Said) -> list[Option]:
    none = FAULTS["clipping-missing"]
    if said.max_norm == math.inf:
        return [Intended(none, "without a clip", _SAID)]
    if said.max_norm is not None:
        return [_clip_to(said.max_norm, reason=_SAID)]
    if "max_norm" in asked.read:
        return [None]
    without = Intended(none, "without a clip", unread="max_norm", option=NORM)
    if threshold is not None:
        return [_clip_to(threshold, unread="max_norm"), without]
    return [without, *(_clip_to(norm, unread="max_norm") for norm in nice(largest_norm(loop)))]  # it may clip by hand


def _clip_to(norm: float, reason: str = "", unread: str = "") -> Option:
    option = NORM if unread else ""
    return None if norm == MAX_NORM else Intended(meant_norm(norm), f"clipped to {norm:g}", reason, unread, option)


def _windows(asked: Asked, backwards: int | None, steps: int, said: Said) -> list[Option]:
    if said.accumulation_steps is not None:
        return [_steps_of(said.accumulation_steps, reason=_SAID)]
    if "accumulation_steps" in asked.read:
        return [None]
    by_batches = math.ceil(asked.batches / steps) if steps else None
    seen = dict.fromkeys(number for number in (backwards, by_batches) if number)
    return [*(_steps_of(n, unread="accumulation_steps") for n in seen if n != ACCUMULATION_STEPS), None]


def _steps_of(number: int, reason: str = "", unread: str = "") -> Option:
    words, option = f"with {number} microbatch{'es' if number > 1 else ''} a step", "--accumulation-steps N"
    change = Intended(meant_steps(number), words, reason, unread, option if unread else "")
    return None if number == ACCUMULATION_STEPS else change


def _epochs(asked: Asked) -> list[Option]:
    if "epochs" in asked.read:
        return [None]
    return [Intended(FAULTS["one-epoch-missing"], "for one epoch", unread="epochs"), None]


def _scaler(asked: Asked, precision: str) -> list[Option]:
    if asked.own_scaler is not None:
        words = "with a loss scaler as it builds it"
        return [Intended(with_own_scaler(asked.own_scaler), words, "scales the loss with a scaler of its own")]
    if "scaler" in asked.takes or precision != "fp16":
        return [None]
    return [Intended(WITHOUT_SCALER, "without a loss scale", "takes no scaler")]


def _freezing(loop: ObservedLoop) -> list[Option]:
    each = frozen(loop)
    names = list(dict.fromkeys(name for some in each for name in some))
    if not names:
        return [None]
    return [Intended(with_frozen(each), f"with {listed(names)} frozen", "freezes parameters")]


def _draws(draws: OwnDraws) -> list[list[Option]]:
    order: list[Option] = [None]
    if draws.orders:
        order = [Intended(with_own_order(draws), "with its batches in the same order", "shuffles its batches")]
    states: list[Option] = [None]
    if draws.states:
        states.insert(0, Intended(with_own_draws(draws), "with its random numbers", "draws random numbers of its own"))
    return [order, states]


def in_words(changes: Sequence[Intended]) -> str:
    """Return what is changed of the reference, to follow the word reference; empty if nothing is."""
    return f" ({', '.join(one.words for one in changes)})" if changes else ""
