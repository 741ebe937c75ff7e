"""Loops that compute the same as the reference, or as a known fault, in a different order or rounding.

In fp32, rounding errors stay small over the whole stress scenario, while a fault changes some tensor by more. Errors
with the loss scale or autocast do not show in fp32, but they change everything by factors. So two loops match if the
norms of all tensors that their optimizer steps read and write pass two tests: they are close in fp32, and not far in
the precision that is checked.

A fault that changes less than rounding does, and nothing in fp32, is taken for rounding. The dictionary comes first: it
has two such faults, a loss in half precision and a moving average that follows skipped steps.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from itertools import takewhile
from typing import TypeAlias

from gradparity.check.lookup.close_records import are_close, are_close_parts, has_finite_gradients, is_of_a_step
from gradparity.check.lookup.seen_runs import Norms, SeenRun, name_of
from gradparity.check.lookup.step_norms import may_be_close, norms_of, run_norms
from gradparity.check.lookup.tries import CLASH
from gradparity.check.running.observe import GoOn, Observation, ObservedLoop, Overflow, observe
from gradparity.check.running.uncheckable import steps_made
from gradparity.faults import FAULTS, Change, Fault, FaultKind
from gradparity.faults.fault import Divergence
from gradparity.faults.patching import ClashError, reference_with
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.processes.forked_map import forked_map
from gradparity.trace.events import Event, Record
from gradparity.training import Phase

RunReference: TypeAlias = Callable[[Sequence[Change], str, GoOn], ObservedLoop]
"""Runs the reference with faults, in a precision, until its third argument says to stop."""

FIRST_FORWARD = Place(0, 0, Phase.FORWARD)

CLOSE_IN_FP32 = 1e-4
NOT_FAR = {"fp16": 0.01, "bf16": 0.08, "fp32": CLOSE_IN_FP32, "fp64": CLOSE_IN_FP32}
"""Tolerances relative to the norm of a tensor, by precision: about 20 rounding errors of a number in half precision."""


def _run_reference(faults: Sequence[Change], precision: str, go_on: GoOn) -> ObservedLoop:
    """Run the reference with ``faults`` until ``go_on`` says to stop."""
    names = reference_with(faults)
    return observe(names["reference"], names["build"], precision, go_on)


Remembered: TypeAlias = Callable[[SeenRun, Sequence[Change]], dict[str, SeenRun]]
"""Returns the remembered norms of a reference with faults, such as
:meth:`gradparity.check.lookup.kept_runs.KeptRuns.norms_of`."""


def match_with_rounding(
    loop: ObservedLoop,
    in_fp32: ObservedLoop,
    precision: str,
    meant: Sequence[Change] = (),
    unasked: frozenset[Part] = frozenset(),
    meant_in_fp32: Sequence[Change] | None = None,
    remembered: Remembered = lambda reference, changes: {},
    progress: Callable[[int, int], None] = lambda done, total: None,
    first: Place | None = None,
) -> tuple[Fault, ...] | None:
    """Return the fault that a loop behaves like, except for rounding.

    The result is empty if the loop behaves like the reference, and ``None`` if it behaves like neither.

    Args:
        loop: the loop, observed in ``precision``.
        in_fp32: the same loop, observed in fp32.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        meant: changes to the reference that make it do what the loop means to do.
        unasked: parts of the state that the loop does not take, so that it cannot keep them as the reference does.
        meant_in_fp32: the same changes in fp32, if they are different.
        remembered: returns the norms of runs in fp32 that are remembered; those that are made here are added.
        progress: called with the number of faults compared so far, and the number to compare.
        first: where the loop differs first. If its first loss is the reference's, no fault in that loss explains it,
            though a clip may hide the loss's factor from all that steps read.
    """
    changed = meant if meant_in_fp32 is None else meant_in_fp32

    def close(one: ObservedLoop, faults: Sequence[Fault], precision: str, tolerance: float) -> bool:
        with suppress(ClashError):
            changes = changed if one is in_fp32 else meant
            return is_close(one, [*changes, *faults], precision, tolerance, unasked=unasked)
        return False

    if first_match(loop, in_fp32, precision, (), close) == ():
        return ()
    possible = _with_its_norms(in_fp32, changed, remembered, progress)
    if first is not None and first != FIRST_FORWARD:
        possible = [fault for fault in possible if fault.first != Divergence(FIRST_FORWARD, Part.LOSS)]
    return first_match(loop, in_fp32, precision, possible, close, reference_too=False)


def _with_its_norms(
    in_fp32: ObservedLoop,
    changes: Sequence[Change],
    remembered: Remembered,
    progress: Callable[[int, int], None],
) -> list[Fault]:
    """Return the known faults with which the gradients of all steps may have about the norms of a loop."""
    bugs, expected = bugs_of(FAULTS.values()), norms_of(in_fp32)
    if not expected:  # it steps an optimizer of its own, and only its last weights could be compared
        return []

    def seen(faults: Sequence[Change], expected: Sequence[Norms] | None) -> SeenRun:
        names = reference_with(faults)
        return run_norms(names["reference"], names["build"], "fp32", expected, CLOSE_IN_FP32)

    memory = remembered(seen(changes, None), changes)

    def may_be(fault: Fault) -> bool | None:
        known = memory.get(name_of((fault,)))
        if known is None:
            return None
        return not known.clashes and may_be_close(known, expected, CLOSE_IN_FP32)

    def run(fault: Fault) -> SeenRun:
        with suppress(ClashError):
            return seen([*changes, fault], expected)
        return CLASH

    unknown = [fault for fault in bugs if may_be(fault) is None]
    for done, (fault, found) in enumerate(zip(unknown, forked_map(run, unknown), strict=True)):
        progress(done, len(unknown))
        memory[name_of((fault,))] = found
    return [fault for fault in bugs if may_be(fault)]


def bugs_of(known: Iterable[Fault]) -> list[Fault]:
    """Return the faults that are bugs."""
    return [fault for fault in known if fault.kind == FaultKind.BUG]


def first_match(
    loop: ObservedLoop,
    in_fp32: ObservedLoop,
    precision: str,
    known: Iterable[Fault],
    is_close: Callable[[ObservedLoop, Sequence[Fault], str, float], bool],
    reference_too: bool = True,
) -> tuple[Fault, ...] | None:
    """Return the first of the ``known`` faults that a loop is close to, both in fp32 and in ``precision``.

    The reference itself comes first, unless it was compared already.
    """

    def matches(faults: Sequence[Fault]) -> bool:
        in_both = ((in_fp32, "fp32", CLOSE_IN_FP32), (loop, precision, NOT_FAR[precision]))
        return all(is_close(one, faults, kind, tolerance) for one, kind, tolerance in in_both)

    sets: list[tuple[Fault, ...]] = [()] if reference_too else []
    sets += ((fault,) for fault in bugs_of(known))
    with closing(forked_map(matches, sets)) as results:
        return next((faults for faults, same in zip(sets, results, strict=True) if same), None)


def is_close(
    loop: ObservedLoop,
    faults: Sequence[Change],
    precision: str,
    tolerance: float,
    run_reference: RunReference = _run_reference,
    unasked: frozenset[Part] = frozenset(),
) -> bool:
    """Return whether optimizer steps of ``loop`` and of the reference with ``faults`` read and write about the same."""
    if Part.PARAMETERS in unasked and not loop.moves:  # nothing is left that could differ
        return False
    if loop.moves and not steps_made(loop):
        run = run_reference(faults, precision, lambda *_: True)
        return run.end.finished and loop.end.finished and _close_moves(loop, run, tolerance, unasked)
    expected = [r for r in loop.trace.records if is_of_a_step(r)]

    def go_on(records: Sequence[Record], _: Sequence[Observation]) -> bool:
        found = [r for r in records if is_of_a_step(r)]
        return not found or (
            len(found) <= len(expected) and are_close(found[-1], expected[len(found) - 1], tolerance, unasked)
        )

    run = run_reference(faults, precision, go_on)
    return run.end.finished and loop.end.finished and sum(map(is_of_a_step, run.trace.records)) == len(expected)


def _close_moves(loop: ObservedLoop, run: ObservedLoop, tolerance: float, unasked: frozenset[Part]) -> bool:
    """Return whether the gradients before each change of the weights, and the ends, are about the same."""
    if len(loop.moves) != len(run.moves):
        return False
    ours, theirs = (
        [*({Part.GRADIENTS: r.parts.get(Part.GRADIENTS, {})} for r in one.moves), one.trace.records[-1].parts]
        for one in (loop, run)
    )
    return all(are_close_parts(a, b, tolerance, unasked) for a, b in zip(ours, theirs, strict=True))


def steps_alike(loop: ObservedLoop, reference: ObservedLoop, precision: str, unasked: frozenset[Part]) -> int:
    """Return the number of records of steps until one that differs from the reference's by more than rounding."""
    ours, theirs = ([r for r in run.trace.records if is_of_a_step(r)] for run in (reference, loop))
    pairs = zip(ours, theirs, strict=False)
    alike = takewhile(bool, (are_close(one, other, NOT_FAR[precision], unasked) for one, other in pairs))
    return len(list(alike))


def overflows_apart(
    loop: ObservedLoop,
    reference: ObservedLoop,
    in_fp32: ObservedLoop,
    precision: str,
    meant: Sequence[Change] = (),
    unasked: frozenset[Part] = frozenset(),
) -> Overflow | None:
    """Return where only one of loop and reference overflows, if nothing but rounding differs before it.

    A loop that divides after the backward has larger gradients in half precision, so that they overflow sooner. What
    follows that step cannot be compared; in fp32, where nothing overflows, the two must agree to the end.

    Args:
        loop: the loop, observed in ``precision``.
        reference: the reference with what is ``meant``, in the same precision.
        in_fp32: the loop, observed in fp32.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        meant: changes to the reference that make it do what the loop means to do.
        unasked: parts of the state that the loop does not take.
    """
    if not is_close(in_fp32, meant, "fp32", CLOSE_IN_FP32, unasked=unasked):
        return None
    pairs = zip(*([r for r in run.trace.records if is_of_a_step(r)] for run in (loop, reference)), strict=False)
    overflown = False
    for one, other in pairs:
        if one.step == other.step and {one.event, other.event} == {Event.STEP, Event.SKIP}:
            return Overflow(one.step, one.event == Event.SKIP) if overflown else None
        if not are_close(one, other, NOT_FAR[precision], unasked):
            finite = [has_finite_gradients(r.parts) for r in (one, other)]
            if one.event != other.event or finite[0] == finite[1]:
                return None
            overflown = True
    return None
