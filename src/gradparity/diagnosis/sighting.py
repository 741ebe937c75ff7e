"""All that is seen of somebody's loop, in a process that the loop may spoil; the verdict is given elsewhere."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gradparity.diagnosis.apart import Watch
from gradparity.diagnosis.given import Given, running
from gradparity.diagnosis.lookup import first_shown
from gradparity.diagnosis.observe import ENDLESS, Loop, Observed, observe, observe_with
from gradparity.diagnosis.oracle import error_of_first_step
from gradparity.diagnosis.plight import plight, stepped
from gradparity.diagnosis.retained import Graphs
from gradparity.diagnosis.settings import Settings
from gradparity.errors import UserError
from gradparity.faults import stress
from gradparity.trace.file import Writer
from gradparity.trace.recording import about


@dataclass(frozen=True)
class Sighting:
    """A loop as it was seen, several times."""

    seen: Observed
    plain: Observed | None = None
    """In fp32, if it comes to its end."""
    after: Observed | None = None
    """The reference, where the loop had just been; ``None`` if it could not even begin there."""
    instead: str = ""
    """What it trains instead of what it was given, as a predicate; empty if it does not."""
    plight: str = ""
    """What makes it idle to look for more than one fault, as a predicate; empty if nothing does."""
    graphs: Graphs = field(default_factory=Graphs)
    """Those that it was seen to keep."""
    oracle: float | None = None
    """The relative error of its first gradient, by :mod:`gradparity.diagnosis.oracle`."""
    left: Sequence[str] = ()
    """What it has set for the whole process, and left so."""
    hooks: Sequence[str] = ()
    """What it has left hooks on."""


def sight(load: Callable[[], Loop], name: str, precision: str, folder: Path, watch: Watch) -> Sighting:
    """Watch a loop under the stress scenario, as often as needed.

    Args:
        load: imports it.
        name: what it is called.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        folder: for a trace with all tensors.
        watch: over each run of it.

    Raises:
        UserError: if it cannot be loaded, does not repeat itself, or leaves something running.
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
    except Exception:  # a device on which nothing can be made, or a function that is none
        after = None
    before.put_back()
    graphs = Graphs()
    if seen.error != ENDLESS:
        again = observe(watched, graphs.build, precision, graphs.after)
        before.put_back()
        if again != seen:
            raise UserError(
                f"{name} does not repeat itself: run twice, it differs at {first_shown(seen, again)}; let it keep "
                "nothing between calls, and draw random numbers from torch only"
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
