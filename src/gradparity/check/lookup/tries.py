"""Runs of the reference with faults, compared with one loop: from memory where it is enough, else on all cores."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeAlias

from gradparity.check.lookup.effects import effect_of
from gradparity.check.lookup.seen_runs import HASH_BYTES, Agreement, SeenRun, name_of, seen_run
from gradparity.check.running.observe import Observation, ObservedLoop, common_prefix
from gradparity.faults import Fault
from gradparity.faults.patching import ClashError
from gradparity.processes.forked_map import forked_map

Faults: TypeAlias = tuple[Fault, ...]

Observe: TypeAlias = Callable[[Sequence[Fault], Sequence[Observation]], ObservedLoop]
"""Observes the reference with some faults, until it differs from the observations that are expected."""

CLASH = SeenRun(b"", None, clashes=True)


class WrongMemoryError(Exception):
    """A run that was remembered is not what the reference does with these faults."""


class Tries:
    """Comparisons of one loop with runs of the reference.

    Args:
        loop: the loop as it was observed.
        reference: the reference as it was observed.
        observe: runs the reference.
        memory: the runs that are remembered, by the name of their faults; what is run is added to it.
        processes: number of processes that run the reference; by default as many as there are cores.
    """

    def __init__(
        self,
        loop: ObservedLoop,
        reference: ObservedLoop,
        observe: Observe,
        memory: dict[str, SeenRun],
        processes: int | None = None,
    ) -> None:
        self.loop, self.reference, self.observe, self.memory, self.processes = (
            loop,
            reference,
            observe,
            memory,
            processes,
        )
        self._whole = seen_run(loop)
        self._run_here = set[str]()

    def each(self, sets: Iterable[Faults]) -> Generator[tuple[Faults, Agreement]]:
        """Yield each set of faults with the agreement of the reference with them; leave out those that clash.

        Close the iterator to stop early.
        """
        listed = [(faults, name_of(faults)) for faults in sets]
        unknown = list({name: faults for faults, name in listed if not self._is_known(name)}.items())
        with closing(forked_map(self._try, [faults for _, faults in unknown], self.processes)) as results:
            found = dict[str, Agreement]()
            waiting = iter(unknown)
            for faults, name in listed:
                while name not in found and not self._is_known(name):
                    ran, _ = next(waiting)
                    self.memory[ran], agreement = next(results)
                    self._run_here.add(ran)
                    if agreement is not None:
                        found[ran] = agreement
                agreement = found.get(name) or self.memory[name].agreement(self._whole)
                if agreement is not None:
                    yield faults, agreement

    def confirm(self, faults: Faults) -> None:
        """Run the reference with ``faults``, which behaves like the loop, unless it was run here already.

        Raises:
            WrongMemoryError: if it behaves differently.
        """
        if name_of(faults) not in self._run_here and self.observe(faults, self.loop.observations) != self.loop:
            raise WrongMemoryError

    def _is_known(self, name: str) -> bool:
        run = self.memory.get(name)
        return run is not None and (run.clashes or run.agreement(self._whole) is not None)

    def _try(self, faults: Faults) -> tuple[SeenRun, Agreement | None]:
        """Run the reference with ``faults``, and return what to remember of it, and its agreement with the loop."""
        try:
            run = self.observe(faults, self.loop.observations)
        except ClashError:
            return CLASH, None
        shared = common_prefix(run.observations, self.loop.observations)
        seen = seen_run(run)
        if seen.end is None:  # what follows the first difference was not meant to be seen
            seen = SeenRun(seen.hashes[: (shared + 1) * HASH_BYTES], None)
        if len(faults) == 1:
            seen = replace(seen, effect=self._effect(run, len(seen.hashes) // HASH_BYTES))
        differing = seen.hashes[shared * HASH_BYTES : (shared + 1) * HASH_BYTES] or None
        return seen, Agreement(shared, run == self.loop, differing)

    def _effect(self, run: ObservedLoop, seen: int) -> bytes | None:
        """Return the effect of a fault where it first shows; ``None`` if that was not ``seen`` of its run."""
        first = common_prefix(run.observations, self.reference.observations)
        if first >= min(seen, len(run.observations), len(self.reference.observations)):
            return None
        return effect_of(run.observations[first], self.reference.observations[first])
