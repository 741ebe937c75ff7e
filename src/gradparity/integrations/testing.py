"""A test that compares a team's own training loop with a reference.

    def test_our_loop_makes_the_reference_updates(assert_parity):
        assert_parity(reference_loop, our_loop, make)

``assert_parity`` comes as a pytest fixture with this package, and as ``gradparity.assert_parity``.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import LRScheduler

from gradparity.parity.random_stream import RandomStream
from gradparity.trace.events import Trace
from gradparity.trace.record import record
from gradparity.trace.report import sentences, trace_difference
from gradparity.trace.trace_file import read


def assert_parity(
    reference: Callable[..., object],
    candidate: Callable[..., object],
    make: Callable[[], tuple[Any, ...]],
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    full: bool = True,
) -> None:
    """Run two training loops from the same start, and fail where they first make different updates.

    Each loop gets its own model and optimizer, from the same seed. The reference runs twice: if its two runs differ,
    nothing can be compared with it.

    Args:
        reference: a training loop; called with what ``make`` returns.
        candidate: the training loop to compare with it; called in the same way.
        make: builds a model and its optimizer, and whatever else the loops take, anew at each call. A scaler and a
            scheduler are watched too if ``make`` returns them.
        folder: where the traces go, in ``null``, ``reference`` and ``candidate``, for ``gradparity diff``; by default
            nothing is kept.
        seed: of the random stream, from which ``make`` draws the weights and the loops draw their dropout masks.
        full: keep tensors during the runs, so that the first difference is reported in ULP. Differences are found
            without them too.

    Raises:
        AssertionError: if the loops differ, with step, phase, tensor, size and the likely meaning; if the reference is
            not reproducible; or if a loop made no step with the optimizer it was given.
    """
    with TemporaryDirectory() as temporary:
        base = Path(folder or temporary)
        runs = {"null": reference, "reference": reference, "candidate": candidate}
        traces = {name: _recorded(loop, make, base / name, seed, full) for name, loop in runs.items()}
        for name in ("reference", "candidate"):
            if not traces[name].records[-1].step:
                raise AssertionError(f"the {name} loop made no step with the optimizer that make() returned second")
        null = trace_difference(traces["null"], traces["reference"])
        if not null.parity:
            words = "\n".join(sentences(null))
            raise AssertionError(f"run twice, the reference differs from itself, so nothing can be compared.\n{words}")
        found = trace_difference(traces["reference"], traces["candidate"])
        if not found.parity:
            raise AssertionError("\n".join(sentences(found)))


def _recorded(
    loop: Callable[..., object], make: Callable[[], tuple[Any, ...]], folder: Path, seed: int, full: bool
) -> Trace:
    with RandomStream(seed, "cuda" if torch.cuda.is_available() else "cpu").active():
        model, optimizer, *others = made = make()
        scaler = next((x for x in others if isinstance(x, GradScaler)), None)
        scheduler = next((x for x in others if isinstance(x, LRScheduler)), None)
        with record(model, optimizer, folder, scaler=scaler, scheduler=scheduler, full=full):
            loop(*made)
    return read(folder)
