"""Progress of a lookup, on standard error: a bar on a terminal, else a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

_SECONDS = 5.0
_WORK = "comparing with known faults"


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show progress, if ``shown``; the function to call takes the number done, and of how many."""
    console = Console(stderr=True)
    if shown and not console.is_terminal:
        yield _lines()
        return
    with Progress(console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(_WORK)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines() -> Callable[[int, int], None]:
    """Return a function that prints a line if the last one is some seconds old."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS:
            last = time.monotonic()
            print(f"gradparity: {_WORK}, {done} of at most {total}", file=sys.stderr, flush=True)

    return tell
