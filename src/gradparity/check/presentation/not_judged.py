"""Sentences on parts of a loop that no reference has or can judge, and on parts of the training that it leaves out."""

from collections.abc import Collection, Iterator, Sequence

from gradparity.check.intended.own_gradients import OWN_GRADIENTS
from gradparity.check.intended.own_learning_rates import OWN_RATES, learning_rates
from gradparity.check.presentation.result import CheckResult
from gradparity.check.updates_and_averages.own_averages import Average
from gradparity.parity.likely_cause import listed
from gradparity.parity.state import Part
from gradparity.trace.events import Event

_MOST_SHOWN = 5


def lines_not_judged(result: CheckResult) -> Iterator[str]:
    """Yield the lines with which a loop changes its gradients itself, under a heading."""
    if any(one.words == OWN_GRADIENTS for one in result.meant) and result.lines:
        yield "Not judged: how it changes its gradients here."
        yield from (f"    {line}: {line.source}" for line in result.lines)


def not_judged(result: CheckResult) -> Iterator[str]:
    """Yield a sentence on each part that no reference has, or can judge."""
    probe = result.probe
    if any(one.words == OWN_RATES for one in result.meant):
        rates = [f"{rate:.4g}" for rate, *_ in learning_rates(probe.observed)]
        yield f"Not judged: the learning rates that it sets ({some(rates)})."
    yield from _of_averages(probe.averages, probe.asked.read | probe.asked.takes)
    averages = {average.name for average in probe.averages}
    kinds = {name: kind for name, kind in probe.own_models.items() if name not in averages}
    if kinds and not result.cannot_be_judged:
        names = listed([f"{name} ({kind})" for name, kind in kinds.items()])
        yield f"Not compared: {names}, which the loop builds itself. The reference has none."
    if outside := _in_no_optimizer(result):
        yield f"Not trained: {some(outside)}, which no optimizer of its own holds."


def _of_averages(averages: Sequence[Average], asked: Collection[str]) -> Iterator[str]:
    """Yield a sentence on each average that follows as it should, of a loop that has asked for some things by name."""
    for average in averages:
        if not average.wrong:
            decay = "a decay that changes" if average.decay is None else f"a decay of {average.decay:.3g}"
            known = "ema_decay" in asked or average.name in asked
            meant = "" if known else " To have the decay judged too, take it from plan.ema_decay."
            yield f"Its average {average.name} follows the weights after each step, with {decay}.{meant}"


def left_out(result: CheckResult) -> Iterator[str]:
    """Yield a sentence on the batches that a loop with an unknown fault never trains on."""
    never = result.probe.never_taken
    if never and not result.finding.matched and not result.probe.uncheckable:
        yield f"It never trains on {some([f'batches[{index}]' for index in never])}."


def _in_no_optimizer(result: CheckResult) -> list[str]:
    """Return the parameters that the loop's own optimizers leave out; none if it has no own ones."""
    held = {name for one in result.probe.asked.own for name in one.names}
    records = result.probe.observed.trace.records
    first = next((r.parts for r in records if r.event == Event.FORWARD and Part.PARAMETERS in r.parts), {})
    return [name for name in first.get(Part.PARAMETERS, {}) if held and name not in held]


def some(words: Sequence[str]) -> str:
    """Return the first of some words, and how many more there are."""
    more = len(words) - _MOST_SHOWN
    return listed([*words[:_MOST_SHOWN], *([f"{more} more"] if more > 0 else [])])
