"""A loop that calls us, turned into an iterator that we call.

A framework's trainer owns its control flow: it cannot stop halfway and give way to another run. So it gets a thread
of its own, which waits at each phase until it is asked to go on. At any time one of the two threads is waiting.
"""

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import torch

from gradparity.training import Moment


class Abandoned(BaseException):
    """Raised inside a loop whose moments nobody asks for any more, so that its thread ends."""


def moments_of(loop: Callable[[Callable[[Moment], None]], None]) -> Iterator[Moment]:
    """Run ``loop(stop)`` and yield each moment that it calls ``stop`` with, at which it waits.

    What ``loop`` raises is raised here. Closing the iterator ends the loop at the moment where it waits.
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    answered: SimpleQueue[Moment | BaseException | None] = SimpleQueue()
    threads = torch.get_num_threads()

    def stop(moment: Moment) -> None:
        answered.put(moment)
        if not asked.get():
            raise Abandoned

    def body() -> None:
        torch.set_num_threads(threads)  # OpenMP keeps the number for each thread that starts parallel work
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
