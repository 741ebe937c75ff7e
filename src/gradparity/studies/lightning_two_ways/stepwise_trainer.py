"""A training loop that owns its control flow, turned into an iterator.

A framework's trainer cannot stop halfway and hand over to another run. So it runs in a separate thread, which waits at
each phase until it is asked to continue. At any time, one of the two threads is waiting.
"""

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import torch

from gradparity.training import Moment


class Abandoned(BaseException):
    """Raised inside a loop to end its thread, once the iterator over its moments is closed."""


def moments_of(loop: Callable[[Callable[[Moment], None]], None]) -> Iterator[Moment]:
    """Run ``loop(stop)``, and yield each moment that it passes to ``stop``; it waits there.

    An exception in ``loop`` is raised here. Closing the iterator ends the loop at the moment where it waits.
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    answered: SimpleQueue[Moment | BaseException | None] = SimpleQueue()
    threads = torch.get_num_threads()

    def stop(moment: Moment) -> None:
        answered.put(moment)
        if not asked.get():
            raise Abandoned

    def body() -> None:
        torch.set_num_threads(threads)  # OpenMP keeps this number per thread that starts parallel work
        try:
            if asked.get():
                loop(stop)
            answered.put(None)
        except BaseException as error:
            answered.put(error)

    thread = threading.Thread(target=body, name="a loop in lockstep", daemon=True)
    thread.start()
    try:
        while True:
            asked.put(True)
            match answered.get():
                case Moment() as moment:
                    yield moment
                case BaseException() as error:
                    raise error
                case None:
                    return
    finally:
        asked.put(False)
        thread.join()
