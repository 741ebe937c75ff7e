"""Figures of a loop over its steps, for plots: weights of tokens, norms, loss scale, learning rate."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.step_windows import StepWindow, relative_weights, size, windows

LEAST = "1 weight of a token, 1 is one mean/{}, least"
LARGEST = "1 weight of a token, 1 is one mean/{}, largest"
BEFORE = "2 gradient norm/{}, before clipping"
AFTER = "2 gradient norm/{}, after clipping"
SCALE = "3 loss scale/{}"
RATE = "4 learning rate/{}"

OVERLAID = {"weight of a token": (LEAST, LARGEST), "gradient norm": (BEFORE, AFTER)}
"""Series that belong into one chart."""


def series(facts: RunFacts) -> dict[str, Mapping[int, float]]:
    """Return the figures of each optimizer by tag and step. What a loop does not have, such as a scale, is left out."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for number, name in names(facts).items():
        story = next(story for story in facts.stories if story.number == number)
        for window in windows(story):
            for tag, value in _figures(window).items():
                found[tag.format(name)][window.step] = value
    return dict(found)


def names(facts: RunFacts) -> dict[int, str]:
    """Return a name for each optimizer that stepped, by its number: its class, counted if there are several."""
    stories = [story for story in facts.stories if story.steps]
    counts, seen = Counter(story.name for story in stories), Counter[str]()
    found = {}
    for story in stories:
        seen[story.name] += 1
        found[story.number] = story.name if counts[story.name] == 1 else f"{story.name} {seen[story.name]}"
    return found


def _figures(window: StepWindow) -> dict[str, float]:
    if window.made is None or window.end is None:
        return {}
    found: dict[str, float] = {}
    weights = relative_weights(window.events).values()
    if weights:
        found |= {LEAST: min(weights), LARGEST: max(weights)}
    after = size(window.end.before)
    found |= {BEFORE: size(window.clips[0][0].before) if window.clips else after, AFTER: after}
    if window.made.scale is not None:
        found[SCALE] = window.made.scale
    if window.made.rates:
        found[RATE] = max(window.made.rates)
    return found
