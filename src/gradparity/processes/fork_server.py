"""Processes that start in milliseconds: forks of one that has imported torch, an import that takes seconds."""

import multiprocessing
import sys
from multiprocessing.context import ForkServerContext, SpawnContext

_PRELOADED = (
    "torch",
    "torch._dynamo",  # else the first optimizer imports it, which takes a second
)

_IF_IMPORTED_HERE = ("torchmetrics", "sklearn.datasets")
"""Needed by experiments, and slow to import; a process that has not imported them needs them in no rank either."""


def fork_context(*modules: str) -> ForkServerContext | SpawnContext:
    """Return the context in which to start processes.

    Where processes cannot be forked, as on Windows, each imports everything itself.

    Args:
        modules: imported once, besides torch, in the process from which the others are forked. All calls share that
            process, so only the modules named before it starts are imported there.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [*_PRELOADED, *(name for name in _IF_IMPORTED_HERE if name in sys.modules), *modules]
    )
    return context


def start_fork_server(*modules: str) -> None:
    """Start the process from which others are forked, so that it imports ``modules`` once for all that follow."""
    if isinstance(fork_context(*modules), ForkServerContext):
        from multiprocessing.forkserver import ensure_running  # not everywhere

        ensure_running()
