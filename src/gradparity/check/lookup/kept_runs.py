"""The dictionary's own runs, kept in the user's cache: one file for each environment, in JSON, with a checksum.

A file holds hashes of runs (:mod:`gradparity.check.lookup.seen_runs`), for each reference that they were made from.
Reading it runs no code. What cannot be read is made again, and what cannot be written is not kept; one line on
standard error says so. Two checks at once write one after the other, and each adds what the file then holds.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import xxhash

from gradparity.check.lookup.effects import EFFECT_BYTES
from gradparity.check.lookup.environment import environment, hash_of_parts
from gradparity.check.lookup.seen_runs import HASH_BYTES, SeenRun, name_of, seen_run
from gradparity.check.running.loop_end import EndKind, LoopEnd
from gradparity.check.running.observe import ObservedLoop
from gradparity.errors import in_a_line
from gradparity.faults import Change
from gradparity.safe_files.open_regular import open_regular
from gradparity.safe_files.user_cache import cache_folder, write_whole

Runs: TypeAlias = dict[str, dict[str, SeenRun]]
"""For each reference: its runs, by the name of their faults."""

_FORMAT = "gradparity check, runs of known faults, 2"

MOST_BYTES = 2**23
"""Largest file that is kept or read, in bytes: the runs of about ten loops that have several faults."""

MOST_FILES = 4
"""Most files that are kept, one for each environment: the newest."""


class KeptRuns:
    """The runs that are kept in this environment.

    Args:
        use: whether to read and write the file; without, runs are only remembered here.
    """

    def __init__(self, use: bool = True) -> None:
        self._path: Path | None = None
        self._use = use
        self._runs: Runs = {}

    @cached_property
    def _read(self) -> Runs:
        """The runs in the file, which is read when they are first asked for: an identical loop needs none."""
        if not self._use:
            return {}
        try:
            self._path = cache_folder() / "check" / f"{environment()}.json"
        except OSError as error:
            _say(f"no runs are kept ({in_a_line(error)})")
            return {}
        return _read(self._path, quietly=False)

    def of(self, reference: ObservedLoop, changes: Sequence[Change], precision: str) -> dict[str, SeenRun]:
        """Return the runs of a reference with faults, by the name of the faults; what is added will be kept.

        Args:
            reference: as it was observed, here, without a fault. So if anything changed its bits that the name of the
                file does not show, such as a flag of this process, these are other runs.
            changes: what was changed of it, as the loop means it.
            precision: a key of :data:`gradparity.training.PRECISIONS`.
        """
        run = seen_run(reference)
        return self._of(hash_of_parts(run.hashes.hex(), repr(run.end), name_of(changes), precision))

    def norms_of(self, reference: SeenRun, changes: Sequence[Change]) -> dict[str, SeenRun]:
        """Return the norms of a reference with faults in fp32, as :meth:`of` does.

        Args:
            reference: its norms as they were seen, here, without a fault.
            changes: what was changed of it, as the loop means it.
        """
        return self._of(hash_of_parts(repr(reference.norms), repr(reference.end), name_of(changes)))

    def _of(self, name: str) -> dict[str, SeenRun]:
        """Return the runs of the reference of this ``name``."""
        if name not in self._runs:
            self._runs[name] = dict(self._read.get(name, {}))
        return self._runs[name]

    def keep(self) -> None:
        """Write all runs to the file, if there are new ones, with those that other checks have written meanwhile."""
        if self._path is None or all(runs == self._read.get(name) for name, runs in self._runs.items()):
            return
        there = _read(self._path, quietly=True)
        merged = {name: runs for name, runs in there.items() if name not in self._runs}
        for name, runs in self._runs.items():  # the newest come last
            if all(faults in runs and _alike(run, runs[faults]) for faults, run in self._read.get(name, {}).items()):
                merged[name] = _merged(there.get(name, {}), runs)
            else:  # a lookup has dropped what was read, because a fault did something else when it was run here
                _say(f"{self._path} held runs that are not those of this machine; they were made again")
                merged[name] = runs
        try:
            write_whole(self._path, _written(merged))
            _remove_oldest(self._path.parent)
        except OSError as error:
            _say(f"{self._path.parent} cannot be written ({error.strerror}), so no runs are kept; see GRADPARITY_CACHE")


def _alike(one: SeenRun, other: SeenRun) -> bool:
    """Return whether both may be of the same run."""
    return one.hashes.startswith(other.hashes) or other.hashes.startswith(one.hashes)


def _merged(some: dict[str, SeenRun], others: dict[str, SeenRun]) -> dict[str, SeenRun]:
    """Return the runs of both; of two of the same faults, the one of which more was seen."""
    merged = dict(some)
    for name, run in others.items():
        known = merged.pop(name, run)
        merged[name] = max((known, run), key=lambda one: (one.end is not None, len(one.hashes), len(one.norms)))
    return merged


def _written(runs: Runs) -> bytes:
    """Return the content of a file with ``runs``; without the oldest, if they are too many."""
    lines = [
        json.dumps([reference, name, run.hashes.hex(), _end_written(run), _hex(run.effect), run.norms])
        for reference, some in runs.items()
        for name, run in some.items()
    ]
    size = 0
    kept: list[str] = []
    for line in reversed(lines):
        size += len(line) + 1
        if size > MOST_BYTES - 1000:
            break
        kept.append(line)
    body = "\n".join(reversed(kept)).encode()
    return json.dumps([_FORMAT, xxhash.xxh3_128_hexdigest(body)]).encode() + b"\n" + body


def _hex(effect: bytes | None) -> str | None:
    return None if effect is None else effect.hex()


def _end_written(run: SeenRun) -> Any:
    if run.clashes:
        return "clashes"
    return None if run.end is None else {k: v for k, v in asdict(run.end).items() if k != "frame"}


def _read(path: Path, quietly: bool) -> Runs:
    """Return the runs in a file; none if it is not there, or is not such a file."""
    try:
        with open_regular(path, MOST_BYTES) as file:
            head, _, body = file.read(MOST_BYTES + 1).partition(b"\n")
        if json.loads(head) != [_FORMAT, xxhash.xxh3_128_hexdigest(body)]:
            raise ValueError("its checksum is wrong")
        runs: Runs = {}
        for line in body.splitlines():
            reference, name, *run = json.loads(line)
            runs.setdefault(str(reference), {})[str(name)] = _run_read(*run)
        return runs
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if not quietly:
            _say(f"{path} cannot be used ({in_a_line(error)}); its runs are made again")
        return {}


def _run_read(hashes: str, end: Any, effect: str | None, norms: list[dict[str, float | None]]) -> SeenRun:
    """Return the run that a line describes.

    Raises:
        ValueError: or another error of a value that is not what it should be, if it describes none.
    """
    seen, first = bytes.fromhex(hashes), None if effect is None else bytes.fromhex(effect)
    if len(seen) % HASH_BYTES or len(first or b"") % EFFECT_BYTES:
        raise ValueError("a hash is cut off")
    steps = tuple({str(k): None if v is None else float(v) for k, v in step.items()} for step in norms)
    if end == "clashes":
        return SeenRun(seen, None, clashes=True)
    ended = None if end is None else LoopEnd(EndKind(end["kind"]), end["exception"], end["message"])
    return SeenRun(seen, ended, effect=first, norms=steps)


def _remove_oldest(folder: Path) -> None:
    """Remove all files but the newest, such as those of versions that are gone."""
    by_age = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-MOST_FILES]:
        path.unlink(missing_ok=True)


def _say(sentence: str) -> None:
    print(f"gradparity: {sentence}", file=sys.stderr, flush=True)
