"""Processes that start in milliseconds: forks of one that has imported torch, an import that takes seconds."""

import multiprocessing
from multiprocessing.context import ForkServerContext, SpawnContext

PRELOADED = (
    "torch",
    "torch._dynamo",  # else the first optimizer imports it, which takes a second
    "torchmetrics",
    "sklearn.datasets",
    "gradparity.studies.distributed.trial",
    "gradparity.check.rank_worker",
    "gradparity.studies.matrix.run",
)
"""Modules imported once, in the process from which all others are forked."""


def forks() -> ForkServerContext | SpawnContext:
    """Return the context in which to start processes.

    Where processes cannot be forked, as on Windows, each imports everything itself.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context
