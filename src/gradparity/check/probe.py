"""All observations of a user's loop, made in a process that the loop may spoil; the verdict is given elsewhere."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gradparity.check.global_state import Settings
from gradparity.check.graph_leaks import Graphs
from gradparity.check.lookup import first_shown
from gradparity.check.observe import ENDLESS, Loop, Observed, observe, observe_with
from gradparity.check.oracle import error_of_first_step
from gradparity.check.trained_objects import Given, running
from gradparity.check.uncheckable import plight, stepped
from gradparity.errors import UserError
from gradparity.faults import stress
from gradparity.processes.sandbox import Watch
from gradparity.trace.file import Writer
from gradparity.trace.record import about


@dataclass(frozen=True)
class Sighting:
    """All observations of one loop, from several runs."""

    seen: Observed
    plain: Observed | None = None
    """The loop in fp32; ``None`` if it did not finish."""
    after: Observed | None = None
    """The reference, run in the same process right after the loop; ``None`` if it could not even begin."""
    instead: str = ""
    """A predicate: what the loop trains instead of what it was given; empty if it trains that."""
    plight: str = ""
    """A predicate: why the loop cannot be checked for more than one fault; empty if it can."""
    graphs: Graphs = field(default_factory=Graphs)
    """The graphs that it was observed to keep."""
    oracle: float | None = None
    """The relative error of its first gradient, by :mod:`gradparity.check.oracle`."""
    left: Sequence[str] = ()
    """Process-wide settings that it changed and did not restore."""
    hooks: Sequence[str] = ()
    """Modules, parameters and optimizers on which it left hooks."""


def sight(load: Callable[[], Loop], name: str, precision: str, folder: Path, watch: Watch) -> Sighting:
    """Run a loop under the stress scenario, as often as needed, and return all observations.

    Args:
        load: imports the loop.
        name: the name of the loop in messages.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        folder: for a trace with all tensors.
        watch: limits the time of each run of the loop.

    Raises:
        UserError: if the loop cannot be loaded, does not repeat itself, or leaves something running.
    """
    torch.set_num_threads(1)  # as it is observed: no doing of the loop
    before = Settings.now()
    threads = set(threading.enumerate())
    with watch.over(f"the import of {name.partition(':')[0]}"):
        loop = load()
    before.put_back()

    def watched(**given: Any) -> None:
        with watch.over(name):
            loop(**given)

    given, writer = Given(), Writer(folder, about(), full=True)
    try:
        with given.watching_others():
            seen = observe(watched, given.build, precision, writer=writer)
    finally:
        writer.close()
    if still := running(threads):
        raise UserError(f"{name} leaves {still} running when it returns; let it wait for that, or stop it")
    left = before.changed()
    try:
        after = observe_with([], precision)
    except Exception:  # such as a default device that holds no tensors, or a function replaced by a non-function
        after = None
    before.put_back()
    graphs = Graphs()
    if seen.error != ENDLESS:
        again = observe(watched, graphs.build, precision, graphs.after)
        before.put_back()
        if again != seen:
            raise UserError(
                f"{name} does not repeat itself: run twice, it differs at "
                f"{first_shown(seen, again) or 'no place'}; let it keep nothing between calls, "
                "and draw random numbers from torch only"
            )
    plain = oracle = None
    if seen.error is None:
        plain = observe(watched, stress.build, "fp32")
        before.put_back()
        oracle = error_of_first_step(watched)
    instead = given.replaced() if stepped(seen) else given.of_another() or given.replaced()
    return Sighting(
        seen=seen,
        plain=plain,
        after=after,
        instead=instead,
        plight=plight(seen, instead),
        graphs=graphs,
        oracle=oracle,
        left=left,
        hooks=given.hooks_left(),
    )
