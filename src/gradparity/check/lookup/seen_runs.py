"""A run of the reference with faults as hashes, enough to tell a loop from it at the first different bit.

A hash stands for one observation: the place, and all values there that are judged. Two different hashes are two
different observations. Two equal ones could, in principle, be different too; so a fault is only named after it was run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import xxhash

from gradparity.check.running.loop_end import EndKind, LoopEnd
from gradparity.check.running.observe import Observation, ObservedLoop
from gradparity.faults import Change

HASH_BYTES = 8

Norms: TypeAlias = dict[str, float | None]
"""The norm of each gradient at one step, by parameter; ``None`` without a gradient."""


class Agreement(NamedTuple):
    """The extent to which a run behaves like a loop."""

    shared: int
    """Number of observations before the first different one."""
    same: bool
    """True if they are the same to the end."""
    differing: bytes | None
    """The hash of the run's first observation that the loop does not have; ``None`` if the run has no more."""


@dataclass(frozen=True)
class SeenRun:
    """The hashes of a run's observations, up to where it ended or was stopped."""

    hashes: bytes
    """:data:`HASH_BYTES` for each observation."""
    end: LoopEnd | None
    """``None`` if it was stopped."""
    clashes: bool = False
    """True if there is no such run, because two faults cannot be combined."""
    effect: bytes | None = None
    """One fault's effect where it first shows, as in :mod:`gradparity.check.lookup.effects`; ``None`` if not seen."""
    norms: tuple[Norms, ...] = ()
    """For a run of which only these were seen, by :mod:`gradparity.check.lookup.step_norms`: the norms at each step."""

    def agreement(self, loop: "SeenRun") -> Agreement | None:
        """Return the agreement with a whole ``loop``; ``None`` if too little of this run was seen to know it."""
        mine, theirs = self.hashes, loop.hashes
        length = min(len(mine), len(theirs))
        shared = length if mine[:length] == theirs[:length] else _shared(mine, theirs)
        if shared == len(mine) and self.end is None:
            return None
        differing = mine[shared : shared + HASH_BYTES] or None
        same = self.end is not None and len(mine) == len(theirs) == shared and self.end == loop.end
        return Agreement(shared // HASH_BYTES, same, differing)


def _shared(one: bytes, other: bytes) -> int:
    starts = range(0, min(len(one), len(other)), HASH_BYTES)
    return next(i for i in starts if one[i : i + HASH_BYTES] != other[i : i + HASH_BYTES])


def seen_run(run: ObservedLoop) -> SeenRun:
    """Return a run as hashes."""
    end = None if run.end.kind == EndKind.STOPPED else run.end
    return SeenRun(b"".join(map(hash_of, run.observations)), end)


def hash_of(observation: Observation) -> bytes:
    """Return the hash of an observation, which is the same in every process and on every platform."""
    values = sorted((part.value, name, repr(value)) for part, name, value in observation.content)
    return xxhash.xxh3_64_digest(repr((observation.place, values)).encode())


def name_of(changes: Sequence[Change]) -> str:
    """Return a hash of everything that ``changes`` change in the reference."""
    patches = [(thing.__module__, thing.__qualname__, patch) for c in changes for thing, patch in c.changes.items()]
    return xxhash.xxh3_128_hexdigest(repr(sorted(patches)).encode())  # in any order they make the same reference
