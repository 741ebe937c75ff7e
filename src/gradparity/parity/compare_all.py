"""All values of two runs at one phase compared by name, to find the few that need a closer look: mostly none."""

from collections.abc import Mapping
from typing import NamedTuple

from gradparity.parity.flatten_values import Value
from gradparity.parity.many_at_once import ManyPairs
from gradparity.parity.state import Part


class NamesToCheck(NamedTuple):
    """The values of two runs at one phase that need a closer look, by name, and the size of the others."""

    doubtful: dict[Part, list[str]]
    """Names in each part whose values may differ in any way; all others are the same in both runs."""
    counts: dict[Part, int]
    """Number of names in each part that one run has, or both."""
    numbers: int
    """Number of numbers in the values that are the same."""


def compare_all(
    pairs: ManyPairs, reference: Mapping[Part, Mapping[str, Value]], candidate: Mapping[Part, Mapping[str, Value]]
) -> NamesToCheck:
    """Compare the values of two runs at one phase, where both have the same parts."""
    doubtful, counts = dict[Part, list[str]](), dict[Part, int]()
    ours, theirs, parts, texts = list[Value](), list[Value](), dict[Part, list[str]](), 0
    for part, values in reference.items():
        if part == Part.ALIASING and values == candidate[part]:  # text alone, so what is equal is the same
            doubtful[part], counts[part] = [], len(values)
            texts += len(values)
            continue
        names, others = list(values), list(candidate[part])
        if names == others:
            parts[part] = names
            ours += values.values()
            theirs += candidate[part].values()
        else:
            doubtful[part] = list(dict.fromkeys(names + others))
        counts[part] = len(parts.get(part, doubtful.get(part, ())))
    positions, numbers = pairs.compare(ours, theirs)
    start = 0
    for part, names in parts.items():
        doubtful[part] = [names[i - start] for i in positions if start <= i < start + len(names)]
        start += len(names)
    return NamesToCheck(doubtful, counts, numbers + texts)
