"""What came of a lockstep: how much was compared, in which phases, and where the first difference was."""

from collections import Counter
from dataclasses import dataclass, field

from gradparity.parity.compare import Mismatch
from gradparity.parity.explain import explain
from gradparity.parity.lockstep import Comparison
from gradparity.parity.state import Part
from gradparity.training import Phase


@dataclass
class Cell:
    """All comparisons of one part at one phase."""

    compared: int = 0
    differing: int = 0
    max_ulp: int = 0


@dataclass
class Verdict:
    """Gathers comparisons as they are made."""

    steps: int = 0
    numbers: int = 0
    """How many numbers were compared, one counted each time."""
    cells: dict[tuple[Phase, Part], Cell] = field(default_factory=dict)
    uncompared: Counter[Phase] = field(default_factory=Counter)
    """How often one run alone passed through a phase of a single microbatch."""
    unseen: dict[str, int] = field(default_factory=dict)
    """How often a value could not be compared, or only by type and shape, by its part and name."""
    first: tuple[Comparison, Mismatch] | None = None
    """The first difference; it explains the ones after it."""
    explanation: str = ""

    @property
    def parity(self) -> bool:
        """Whether at least one step was compared and nothing differed."""
        return self.steps > 0 and self.first is None

    def add(self, found: Comparison) -> None:
        """Count ``found``, and keep it if it holds the first difference."""
        if found.step >= 0 and found.phase == Phase.STEPPED:
            self.steps += 1
        self.numbers += found.numbers
        if not found.checked:
            self.uncompared[found.phase] += 1
        for part, count in found.checked.items():
            self._cell(found.phase, part).compared += count
        for part, names in found.unseen.items():
            for name in names:
                self.unseen[f"{part} {name}"] = self.unseen.get(f"{part} {name}", 0) + 1
        for mismatch in found.mismatches:
            self._cell(found.phase, mismatch.part).differing += 1
        for part, figures in found.figures.items():
            cell = self._cell(found.phase, part)
            cell.max_ulp = max(cell.max_ulp, figures.max_ulp)
        if found.mismatches and self.first is None:
            self.first = found, found.mismatches[0]
            self.explanation = explain(found)

    def _cell(self, phase: Phase, part: Part) -> Cell:
        return self.cells.setdefault((phase, part), Cell())
