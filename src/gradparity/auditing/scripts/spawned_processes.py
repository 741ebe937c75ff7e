"""Processes that a script starts, as ``torch.multiprocessing.spawn`` does: each is audited where it runs."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.facts_file import read_facts, write_facts
from gradparity.auditing.watching.user_lines import of_the_user, raised
from gradparity.trace.wrapping import wrapped


class Enough(BaseException):
    """Ends a script once enough steps were watched; no ``except Exception`` catches it."""


def go_on() -> None:
    """Let a script go on once enough steps were watched."""


@dataclass(frozen=True)
class Audited:
    """The target of a process, with an audit around it. It is pickled with the process."""

    target: Callable[..., Any]
    steps: int
    done: Callable[[], None]
    facts: Path
    """The file for the facts."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the target under a watch, and leave the facts; an error of ours changes nothing."""
        from gradparity.auditing.watching.watch import Watch  # which imports this file

        with ExitStack() as stack:
            watch = Watch(self.steps, self.done)
            watch.ranks.leads = False
            stack.callback(self._leave, watch)
            with suppress(Exception):
                stack.enter_context(watch.watching())
            try:
                return self.target(*args, **kwargs)
            except Enough:
                return None
            except Exception as error:
                watch.raised = raised(error)
                raise

    def _leave(self, watch: Any) -> None:
        with suppress(Exception):
            write_facts(watch.facts(), self.facts)


class Spawned:
    """The processes that this one has started while it was watched.

    Args:
        steps: the number of steps of each optimizer to watch in them.
        done: called in each once these were made.
    """

    def __init__(self, steps: int, done: Callable[[], None]) -> None:
        self._steps, self._done = steps, done
        self._folder: Path | None = None
        self._started: list[tuple[Any, Path]] = []
        self._process = os.getpid()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Audit every process that starts in the block with a target of the user's."""
        with wrapped(BaseProcess, "start", self._start):
            yield

    def _start(self, original: Callable[..., Any], process: Any, *args: Any, **kwargs: Any) -> Any:
        target = getattr(process, "_target", None)
        audited = None
        with suppress(Exception):
            audited = self._around(target)
        if audited is None:
            return original(process, *args, **kwargs)
        process._target = audited
        try:
            result = original(process, *args, **kwargs)
            self._started.append((process, audited.facts))
            return result
        finally:
            process._target = target

    def _around(self, target: Any) -> Audited | None:
        by_torch = getattr(target, "__module__", "") == "torch.multiprocessing.spawn"
        code = getattr(target, "__code__", None)
        if os.getpid() != self._process or not (by_torch or (code is not None and of_the_user(code.co_filename))):
            return None
        if self._folder is None:
            self._folder = Path(mkdtemp(prefix="gradparity-"))
        return Audited(target, self._steps, self._done, self._folder / f"{len(self._started)}.facts")

    def all_facts(self, patience: float) -> list[RunFacts]:
        """Wait for the processes that are not over; return the facts of those that have trained, in order.

        An facts that cannot be read is left out.
        """
        until = time.monotonic() + patience
        while time.monotonic() < until and any(
            not path.exists() and not process.daemon and process.is_alive() for process, path in self._started
        ):
            time.sleep(0.02)
        found: list[RunFacts] = []
        for _, path in self._started:
            with suppress(Exception):  # not there, or not whole
                found.append(read_facts(path))
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        return [facts for facts in found if facts.stories or facts.raised]
