"""One verdict from all ranks: each leaves its facts in a folder, and rank 0 reads them once its own loop has ended.

Nothing of this goes through the training's process groups, so the order of its collectives stays as it is. Ranks of
one machine find the folder by themselves: its name follows from what torchrun has told all of them.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import gettempdir

import torch.distributed as dist
import xxhash
from torch import Tensor

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.facts_file import read_facts, write_facts
from gradparity.errors import in_a_line
from gradparity.trace.process_rank import this_rank, world_size

PATIENCE = 60.0
"""Seconds that rank 0 waits at the end of its script for the others' facts."""

PATIENCE_INSIDE = 10.0
"""Seconds that it waits in the middle of a program, or after its loop has failed."""

_UNSEEN = 2.0
"""Seconds that it waits for a rank that gave no sign of being watched."""

_SAME_FOR_ALL = (
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


_AUDITS = count()
"""The audits of this process: each has a folder of its own."""


@dataclass
class Rank:
    """This process among those that train together."""

    number: int
    world: int
    folder: Path
    began: float = field(default_factory=time.time)
    """The time since which it is watched: what is older in the folder is left from another training."""

    def announce(self) -> None:
        """Leave a sign that this rank is watched.

        Raises:
            OSError: if the folder cannot be made, or is somebody else's.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.folder.is_symlink() or (hasattr(os, "getuid") and self.folder.stat().st_uid != os.getuid()):
            raise OSError(f"{self.folder} is not this user's own")
        self._file(self.number, "watched").write_text(str(os.getpid()))

    def hand_in(self, facts: RunFacts) -> None:
        """Leave facts for rank 0.

        Raises:
            OSError: if it cannot be written.
        """
        write_facts(facts, self._file(self.number, "facts"))

    def gather(self, patience: float) -> tuple[list[RunFacts], list[str]]:
        """Wait for the facts of the other ranks; return them, and a sentence on those that are missing."""
        others = [number for number in range(self.world) if number != self.number]
        began = time.monotonic()
        missing = others
        while missing := [number for number in others if not self._is_there(number)]:
            passed = time.monotonic() - began
            if passed > patience or (passed > _UNSEEN and not any(map(self._may_come, missing))):
                break
            time.sleep(0.02)
        found = [read_facts(self._file(n, "facts")) for n in others if n not in missing]
        shutil.rmtree(self.folder, ignore_errors=True)
        if not missing:
            return found, []
        names = ", ".join(f"rank {number}" for number in missing)
        return found, [f"no facts came from {names}, so nothing is said about what happened there"]

    def _file(self, number: int, kind: str) -> Path:
        return self.folder / f"rank{number}.{kind}"

    def _is_there(self, number: int) -> bool:
        """Return whether the facts of a rank are there, and of this training."""
        with suppress(OSError):
            return self._file(number, "facts").stat().st_mtime >= self.began - 1  # file systems round
        return False

    def _may_come(self, number: int) -> bool:
        """Return whether a rank is watched, and its process is alive."""
        with suppress(OSError, ValueError):
            os.kill(int(self._file(number, "watched").read_text()), 0)
            return True
        return False


def this_rank_of_all() -> Rank | None:
    """Return this process among those that train together, by its process group or by torchrun's environment.

    Return ``None`` if it trains alone.
    """
    number, world = this_rank(), world_size()
    if not (dist.is_available() and dist.is_initialized()):
        with suppress(ValueError):
            number, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return Rank(number, world, _folder(world, next(_AUDITS))) if world > 1 else None


def is_sharded(parameter: Tensor) -> bool:
    """Return whether this rank holds only a part of a parameter, as of a DTensor, of FSDP or of tensor parallelism."""
    marks = ("to_local", "_is_flat_param", "ds_id")
    parallel = getattr(parameter, "tensor_model_parallel", False)
    return bool(parallel) or "Flat" in type(parameter).__name__ or any(hasattr(parameter, mark) for mark in marks)


def _folder(world: int, audit: int) -> Path:
    same = [os.environ.get(name, "") for name in _SAME_FOR_ALL]
    parent = 0 if "MASTER_PORT" in os.environ else os.getppid()  # Lightning's ranks are the children of rank 0
    name = xxhash.xxh3_64_hexdigest(repr([*same, world, audit, parent]).encode())
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(gettempdir()) / f"gradparity-{user}-{name}"


class Ranks:
    """The rank of this process, once it is known; no error in here ends a training."""

    def __init__(self) -> None:
        self.own: Rank | None = None
        self.fault = ""
        self.world = 1
        """The number of ranks in the process group."""
        self.leads = True
        """False if another process gathers the facts."""

    def look(self) -> None:
        """Find out whether this process trains with others, which may be known only after some time."""
        self.world = max(self.world, world_size())
        if self.own is None and self.leads:
            with self._noted():
                self.own = this_rank_of_all()
                if self.own is not None:
                    self.own.announce()

    @property
    def reports(self) -> bool:
        """Return whether this process is the one that reports."""
        return self.own is None or self.own.number == 0

    def exchange(self, facts: RunFacts, patience: float) -> Sequence[RunFacts]:
        """Hand facts in, or return those of the other ranks on rank 0; add to its notes what is missing."""
        others: list[RunFacts] = []
        with self._noted():
            if self.own is None or self.fault:
                pass
            elif self.own.number:
                self.own.hand_in(facts)
            else:
                others, notes = self.own.gather(patience)
                facts.notes += notes
        if self.fault:
            facts.notes.append(f"the facts of other ranks could not be read: {self.fault}")
        return others

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.fault = in_a_line(error)
