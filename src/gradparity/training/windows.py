"""Windows: the microbatches of one optimizer step, and the one number that normalizes their loss.

The mean over a window is not the mean of its microbatches' means: a short microbatch would weigh as much
as a long one. So the count of the *whole* window is taken before the first forward, and every microbatch
divides its summed loss by it. The gradient is then the one of the whole window, whatever the number of
microbatches, in a partial last window too.
(https://github.com/huggingface/transformers/pull/34191 fixed this in a widely used trainer.)
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Window(Generic[Batch]):
    """The microbatches of one optimizer step."""

    microbatches: tuple[Batch, ...]
    normalizer: float
    """The number of samples or tokens in all of ``microbatches`` together; on several ranks, the mean over ranks."""


def windows(
    microbatches: Iterable[Batch], accumulation_steps: int, count: Callable[[Batch], int]
) -> Iterator[Window[Batch]]:
    """Group ``microbatches`` by ``accumulation_steps``; the last window may be smaller.

    Args:
        microbatches: what one forward takes each, in the order of training.
        accumulation_steps: microbatches per optimizer step, at least 1.
        count: how many samples or tokens of a microbatch enter its summed loss.

    Raises:
        ValueError: if ``accumulation_steps`` is below 1, or a window counts no sample or token at all.

    >>> [(w.microbatches, w.normalizer) for w in windows(["a", "bcd", "ef"], 2, count=len)]
    [(('a', 'bcd'), 4), (('ef',), 2)]
    """
    if accumulation_steps < 1:
        raise ValueError(f"accumulation_steps is {accumulation_steps}; a window needs at least 1 microbatch")
    remaining = iter(microbatches)
    while group := tuple(islice(remaining, accumulation_steps)):
        normalizer = sum(map(count, group))
        if normalizer < 1:
            raise ValueError("a window holds no sample or token to train on; drop fully padded microbatches")
        yield Window(group, normalizer)
