"""A plain statement of what a loop does, each item with its line, and of what it never came to."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradparity.auditing.events import ClipCalled, LoopEvent, Schedule, StepMade, Update
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import times
from gradparity.auditing.step_windows import StepWindow, WindowBackward, are_microbatches, size, windows
from gradparity.auditing.watching.user_lines import Line


@dataclass(frozen=True)
class Item:
    """One fact about a loop, for people."""

    text: str
    line: Line | None = None


def statement(facts: RunFacts) -> list[Item]:
    """Return what the loop does, optimizer by optimizer; those with the same sentences come once."""
    summaries = Counter(tuple(_of(story, facts.recorded)) for story in facts.stories if story.steps)
    found = []
    for (first, *rest), number in summaries.items():
        alike = f"{number} optimizers, each: " if number > 1 else ""
        found += [Item(alike + first.text, first.line), *rest]
    return found


def unexercised(facts: RunFacts) -> list[str]:
    """Return what no step has shown, so that nothing can be said about it."""
    found = []
    for story in facts.stories:
        own = [window for window in windows(story) if window.made is not None]
        if not own:
            continue
        alike = sum(other.steps > 0 and other.name == story.name for other in facts.stories)
        name = f"{story.name} ({story.made})" if alike > 1 and story.made.number else story.name
        if any(w.made and w.made.scaler is not None for w in own) and not any(w.made and w.made.skipped for w in own):
            found.append(f"{name}: no step was skipped for an overflow")
        lengths = {len(_used(w)) for w in own}
        if all(are_microbatches(_used(w)) for w in own) and len(lengths) == 1 and max(lengths) > 1:
            found.append(f"{name}: no window was shorter than {lengths.pop()} microbatches")
        built = [kind for number, kind, _ in facts.schedulers if number == story.number]
        if built and not any(isinstance(event.what, Schedule) for event in story.events):
            found.append(f"{name}: {built[-1]} did not run")
        clipped, reached, _ = _clipped(own)
        if clipped and not reached:
            found.append(f"{name}: nothing reached the threshold of the clip")
    return list(dict.fromkeys(found))


def _of(story: Story, recorded: bool) -> Iterator[Item]:
    own = [window for window in windows(story) if window.made is not None]
    yield Item(f"{story.name} {_groups(story)}, {times(len(own))} watched", story.made)
    yield from _windows(own)
    if not recorded:
        yield from _losses(own)
    yield from _scaling(story, own)
    _, reached, item = _clipped(own)
    if item is not None:
        yield Item(f"{item.text} in {reached} of {times(len(own))}", item.line)
    yield from _rates(story)


def _groups(story: Story) -> str:
    number = f"in {len(story.groups)} groups" if len(story.groups) > 1 else "in 1 group"
    decays = sorted({f"{g['weight_decay']:g}" for g in story.groups if isinstance(g.get("weight_decay"), (int, float))})
    return f"{number} of {times(len(story.names), 'parameter')}" + (
        f", weight decay {' and '.join(decays)}" if decays else ""
    )


def _windows(own: Sequence[StepWindow]) -> Iterator[Item]:
    written = [_used(window) for window in own]
    emptied = [len(_into_grad(window)) - len(used) for window, used in zip(own, written, strict=True)]
    returned = [[one for one in window.backwards if not one[1].into_grad] for window in own]
    if any(written) or not any(returned):
        [(usual, _)] = Counter(emptied).most_common(1)
        yield _number(written, "backward", f", after {usual} more whose gradients were emptied" if usual else "")
    if any(returned):
        yield _number(returned, "call", kind=" of autograd.grad")


def _number(backwards: Sequence[Sequence[WindowBackward]], noun: str, besides: str = "", kind: str = "") -> Item:
    """Return how many of these a step has."""
    lengths = Counter(map(len, backwards))
    usual = lengths.most_common(1)[0][0]
    first = next((each[0][0].line for each in backwards if each), None)
    others = ", ".join(f"{n} in {times(count)}" for n, count in sorted(lengths.items()) if n != usual)
    return Item(f"{times(usual, noun)}{kind} a step" + (f" ({others})" if others else "") + besides, first)


def _into_grad(window: StepWindow) -> list[WindowBackward]:
    """Return the backwards of a window that write to ``p.grad``."""
    return [(event, what) for event, what in window.backwards if what.into_grad]


def _used(window: StepWindow) -> list[WindowBackward]:
    """Return the backwards whose gradients the step reads; all if it reads none, or calls a closure several times."""
    written = _into_grad(window)
    if sum(what.inside_step for _, what in written) > 1:
        return written
    return [(event, what) for event, what in written if not window.emptied_after(event)] or written


def _losses(own: Sequence[StepWindow]) -> Iterator[Item]:
    backwards = [_used(window) or window.backwards for window in own]
    read = [(e, loss) for each in backwards for e, what in each for loss in what.losses]
    if not read:
        yield Item("the loss is none whose weights can be read off the graph (its own reduction, or soft targets)")
        return
    kinds = Counter(loss.node.removesuffix("Backward0") for _, loss in read)
    sums = [sum(loss.total for _, what in each for loss in what.losses) for each in backwards if each]
    least, most = min(sums), max(sums)
    total = f"{most:.4g}" if most - least <= 1e-3 * abs(most) else f"{least:.4g} to {most:.4g}"
    yield Item(f"loss: {', '.join(kinds)}; the weights of a window's tokens sum to {total}", read[0][0].line)


def _scaling(story: Story, own: Sequence[StepWindow]) -> Iterator[Item]:
    scales = [w.made.scale for w in own if w.made is not None and w.made.scale is not None]
    if not scales:
        return
    skipped = sum(w.made.skipped for w in own if w.made is not None)
    moved = f"{scales[0]:g}" + (f" to {scales[-1]:g}" if scales[-1] != scales[0] else "")
    line = next((e.line for e in story.events if isinstance(e.what, Update)), None)
    yield Item(f"loss scale {moved}; {skipped} of {times(len(own))} skipped for an overflow", line)


def _clipped(own: Sequence[StepWindow]) -> tuple[int, int, Item | None]:
    """Return the number of windows with a clip, the number in which it reached its threshold, and an item."""
    last = [(w, event, clip) for w in own for event, clip in w.clips[-1:] if clip.covered]
    if not last:
        return 0, 0, None
    limits = sorted({f"{clip.threshold:g}" for _, _, clip in last if clip.threshold is not None})
    _, first, clip = last[0]
    way = "by value" if clip.by_value else "to norm"
    reached = sum(_reached(*each) for each in last)
    return len(last), reached, Item(f"clipped {way} {' or '.join(limits)}; threshold reached", first.line)


def _reached(window: StepWindow, event: LoopEvent, clip: ClipCalled) -> bool:
    """Return whether a clip met its threshold. A norm does not tell it of a clip by value, but what it changed does."""
    if clip.by_value:
        later = next((e for e in window.events if e.number > event.number and e.before), None)
        return later is not None and later.before != event.before
    return clip.threshold is not None and size(event.before) > clip.threshold


def _rates(story: Story) -> Iterator[Item]:
    steps = [e.what for e in story.events if isinstance(e.what, StepMade)]
    first, last = steps[0].rates, steps[-1].rates
    scheduled = [e for e in story.events if isinstance(e.what, Schedule)]
    words = _of_groups(first)
    if last != first:
        words += f" to {_of_groups(last)}"
    largest = max((rate for step in steps for rate in step.rates), default=0.0)
    if largest > max((*first, *last, 0.0)):
        words += f", and as much as {largest:.4g} in between"
    if scheduled and isinstance(scheduled[0].what, Schedule):
        name = scheduled[0].what.name
        rate = f"learning rate {words}" if words else "the optimizer computes its learning rate itself"
        yield Item(f"{rate}; {name} stepped {times(len(scheduled), 'time')}", scheduled[0].line)
    elif words:
        yield Item(f"learning rate {words}; no scheduler was seen")
    elif story.groups and all("lr" in group for group in story.groups):
        yield Item("the optimizer computes its learning rate itself")


def _of_groups(rates: Sequence[float]) -> str:
    """Return the rates of all groups in words: each of two, else the range."""
    different = sorted(set(rates), reverse=True)
    if len(different) > 2:
        return f"{different[0]:.4g} ({different[-1]:.4g} in the slowest of {len(rates)} groups)"
    return " and ".join(dict.fromkeys(f"{rate:.4g}" for rate in rates))
