"""The result of a lockstep: how much was compared, in which phases, and where the first difference was."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gradparity.parity.explain_difference import explain
from gradparity.parity.explanation_kinds import NOTHING, LikelyCause
from gradparity.parity.likely_cause import cause_of, likely_cause
from gradparity.parity.lockstep import Comparison
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase


@dataclass
class VerdictCell:
    """All comparisons of one part at one phase."""

    compared: int = 0
    differing: int = 0
    """Number of compared values that differ, in any way."""
    max_ulp: int = 0
    lone: int = 0
    """Number of times that only one of the two loops reached this phase, so nothing could be compared."""


@dataclass
class Verdict:
    """The verdict on two runs, updated with each comparison."""

    steps: int = 0
    numbers: int = 0
    """Number of numbers compared; a number counts each time it is compared."""
    cells: dict[tuple[Phase, Part], VerdictCell] = field(default_factory=dict)
    uncompared: Counter[Phase] = field(default_factory=Counter)
    """Number of times that only one run passed through a phase of a single microbatch."""
    unseen: dict[str, int] = field(default_factory=dict)
    """Number of times that a value could not be compared, or only by type and shape, by its part and name."""
    first: tuple[Comparison, Mismatch] | None = None
    """The first difference; later ones may follow from it."""
    likely_cause: LikelyCause = NOTHING
    """The meaning of the first difference, as far as there is evidence."""
    explanation: str = ""

    @property
    def parity(self) -> bool:
        """Return whether at least one step was compared and nothing differed."""
        return self.steps > 0 and self.first is None

    def add(self, found: Comparison) -> None:
        """Count ``found``, and keep it if it holds the first difference."""
        phase = found.place.phase
        if found.place.in_a_step and phase == Phase.STEPPED and found.checked:
            self.steps += 1
        self.numbers += found.numbers
        if not found.checked:
            self.uncompared[phase] += 1
        for part, count in found.checked.items():
            self._cell(phase, part).compared += count
        for part, names in found.unseen.items():
            for name in names:
                self.unseen[f"{part} {name}"] = self.unseen.get(f"{part} {name}", 0) + 1
        for part in {mismatch.part for mismatch in found.mismatches}:
            if part in found.checked:
                self._cell(phase, part).differing += len({m.name for m in found.mismatches if m.part == part})
            else:
                self._cell(phase, part).lone += 1
        for part, figures in found.figures.items():
            cell = self._cell(phase, part)
            cell.max_ulp = max(cell.max_ulp, figures.max_ulp)
        if found.mismatches and self.first is None:
            self.first = found, cause_of(found)
            self._explain(found, None)
        elif self.first and found.place == Place(self.first[0].place.step, None, Phase.CLIPPED):
            self._explain(self.first[0], found)

    def _explain(self, first: Comparison, later: Comparison | None) -> None:
        self.likely_cause, self.explanation = likely_cause(first, later), explain(first, later)

    def _cell(self, phase: Phase, part: Part) -> VerdictCell:
        return self.cells.setdefault((phase, part), VerdictCell())


def verdict_of(
    comparisons: Iterable[Comparison],
    watching: Callable[[Comparison], None] = lambda _: None,
    *,
    verdict: Verdict | None = None,
    up_to_first: bool = False,
) -> Verdict:
    """Return the verdict on two runs: of :func:`~gradparity.parity.lockstep.lockstep`, or of two traces.

    Args:
        comparisons: in the order in which they are made.
        watching: called with each comparison, once it is counted.
        verdict: goes on from this one, if it is given.
        up_to_first: stop at the first difference; what follows from it is not compared.
    """
    verdict = verdict or Verdict()
    for found in comparisons:
        verdict.add(found)
        watching(found)
        if up_to_first and verdict.first:
            break
    return verdict
