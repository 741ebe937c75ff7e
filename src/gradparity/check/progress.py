"""A progress bar for a lookup, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, if ``shown``; the function to call takes the number done, and of how many."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("comparing with known faults")
        yield lambda done, total: bar.update(task, completed=done, total=total)
