"""Choice of the reference that a loop is compared with: of all that it may mean to be, the closest one."""

from collections.abc import Sequence
from dataclasses import dataclass

from gradparity.check.intended.intended_reference import Intended
from gradparity.check.lookup.rounding import steps_alike
from gradparity.check.running.observe import Observation, ObservedLoop, common_prefix, observe_reference
from gradparity.check.running.uncheckable import steps_made
from gradparity.faults import Change
from gradparity.faults.patching import ClashError
from gradparity.parity.place_in_training import END
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue
from gradparity.trace.same_updates import updates

_MOST_OPTIONS = 24


@dataclass(frozen=True)
class ClosestReference:
    """A reference, and what was changed of it to make it do what the loop means."""

    run: ObservedLoop
    meant: tuple[Intended, ...] = ()

    @property
    def changes(self) -> list[Change]:
        """Return the changes to the reference."""
        return [one.change for one in self.meant]

    @property
    def changes_in_fp32(self) -> list[Change]:
        """Return the changes to the reference in fp32."""
        return [one.in_fp32 or one.change for one in self.meant]


def closest_reference(
    loop: ObservedLoop,
    plain: ObservedLoop,
    options: Sequence[tuple[Intended, ...]],
    precision: str,
    unasked: frozenset[Part],
) -> ClosestReference:
    """Return a reference of the same updates, if there is one, and of these the one that the loop is close to longest.

    So a reference that the loop is identical to comes before all others.

    Args:
        loop: the loop as it was observed.
        plain: the reference without any change.
        options: the sets of changes that it may mean; the first is taken if several are equally close.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        unasked: parts of the state that the loop does not take, so that it cannot keep them as the reference does.
    """
    found = []
    for meant in options[:_MOST_OPTIONS]:
        try:
            run = observe_reference([one.change for one in meant], precision) if meant else plain
        except ClashError:
            continue
        found.append(ClosestReference(run, meant))
        if run == loop:  # no other can be closer
            return found[-1]
    closest = max(found, key=lambda one: _closeness(loop, one.run, unasked, precision), default=None)
    return closest or ClosestReference(plain)


def _closeness(
    loop: ObservedLoop, reference: ObservedLoop, unasked: frozenset[Part], precision: str
) -> tuple[bool, int, int]:
    shared = common_prefix(loop.observations, reference.observations)
    return same_updates(loop, reference, unasked), steps_alike(loop, reference, precision, unasked), shared


def same_updates(loop: ObservedLoop, reference: ObservedLoop, unasked: frozenset[Part] = frozenset()) -> bool:
    """Return whether two loops make the same updates of the parameters, whatever happens in between.

    Either all that optimizer steps read and write is the same; or the parameters are, after each step; or they are
    before each backward and at the end, if the steps are made by another optimizer than the one that is watched.

    Args:
        loop: a loop as it was observed.
        reference: the reference as it was observed.
        unasked: parts of the state that may differ at the end.
    """
    if loop.end != reference.end or not loop.end.finished:
        return loop.end == reference.end and _of_steps(loop) == _of_steps(reference)
    if Part.PARAMETERS in unasked:  # they are the loop's in the reference too
        return bool(loop.moves) and _gradients(loop) == _gradients(reference)
    found = updates(reference.trace, loop.trace)
    allowed = unasked | ({Part.OPTIMIZER} if Part.SCHEDULER in unasked else set())  # the last learning rate is its own
    if _of_steps(loop) == _of_steps(reference) or (found.same and allowed.issuperset(found.ends_apart)):
        return True
    return not steps_made(loop) and _parameters_before_backwards(loop) == _parameters_before_backwards(reference)


def identical(loop: ObservedLoop, reference: ObservedLoop, unasked: frozenset[Part]) -> bool:
    """Return whether a loop is the reference, bit for bit, in all that it was given and takes.

    It cannot keep a scaler or a scheduler that it does not take. Without the scheduler, the hyperparameters after the
    last step are its own: no step reads them.
    """
    if loop == reference or not unasked:
        return loop == reference
    if loop.end != reference.end or len(loop.observations) != len(reference.observations):
        return False
    pairs = zip(loop.observations, reference.observations, strict=True)
    return all(_asked_of(one, unasked) == _asked_of(other, unasked) for one, other in pairs)


def _asked_of(seen: Observation, unasked: frozenset[Part]) -> Observation:
    own = seen.place == END and Part.SCHEDULER in unasked
    return seen._replace(
        content=frozenset(
            (part, name, value)
            for part, name, value in seen.content
            if part not in unasked and not (own and part == Part.OPTIMIZER and name.startswith("group "))
        )
    )


def _of_steps(run: ObservedLoop) -> list[object]:
    return [one for one in run.observations if one.place.microbatch is None]


def _gradients(run: ObservedLoop) -> list[object]:
    return [dict(filter(_not_zero, record.parts.get(Part.GRADIENTS, {}).items())) for record in run.moves]


def _not_zero(gradient: tuple[str, FingerprintValue]) -> bool:
    """Return whether there is a gradient that is not zero; whether an update treats zero as none is judged apart."""
    return isinstance(gradient[1], Fingerprint) and gradient[1].norm != 0


def _parameters_before_backwards(run: ObservedLoop) -> list[object]:
    return [_parameters(r) for r in run.trace.records if r.event in (Event.FORWARD, Event.END)]


def _parameters(record: Record) -> object:
    return record.parts.get(Part.PARAMETERS), record.parts.get(Part.BUFFERS)
