"""Processes that start in milliseconds: forked from one that has imported torch, which each would need seconds for."""

import multiprocessing
from multiprocessing.context import ForkServerContext, SpawnContext

PRELOADED = (
    "torch",
    "torch._dynamo",  # which the first optimizer would import, in a second
    "torchmetrics",
    "sklearn.datasets",
    "gradparity.studies.distributed.trial",
    "gradparity.check.rank_worker",
    "gradparity.studies.matrix.run",
)
"""Imported once, in the process that all others are forked from."""


def forks() -> ForkServerContext | SpawnContext:
    """The context to start processes in. Where none can be forked, as on Windows, each imports everything itself."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context
