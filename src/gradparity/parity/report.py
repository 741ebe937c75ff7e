"""The verdict as a table for the terminal and for TensorBoard, and as sentences."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from gradparity.parity.explain_difference import lowered, mismatch_in_words, place_in_words
from gradparity.parity.state import Part
from gradparity.parity.step_metrics import StepMetrics
from gradparity.parity.verdict import Verdict, VerdictCell
from gradparity.training import Phase


def verdict_table(verdict: Verdict) -> Table:
    """Return a table of the results, parts by phases."""
    grid = Table(title="Values compared at each phase: ✓ same bits, ✗ how many differ", title_justify="left")
    grid.add_column("")
    for phase in Phase:
        grid.add_column(phase.name.lower(), justify="right")
    for part in _parts(verdict):
        cells = (verdict.cells.get((phase, part)) for phase in Phase)
        grid.add_row(part, *(_colored(cell) for cell in cells))
    return grid


def verdict_markdown(verdict: Verdict) -> str:
    """Return the verdict and its table in Markdown, for a TensorBoard text page."""
    lines = [f"**{verdict_headline(verdict)}** {verdict.explanation}", ""]
    lines.append(f"| | {' | '.join(phase.name.lower() for phase in Phase)} |")
    lines.append("|---" * (len(Phase) + 1) + "|")
    for part in _parts(verdict):
        cells = (verdict.cells.get((phase, part)) for phase in Phase)
        lines.append(f"| {part} | {' | '.join(_cell_text(cell) for cell in cells)} |")
    return "\n".join(lines)


def configuration(yaml: str) -> str:
    """Return machine and configuration for a TensorBoard text page: the same bits need the same of both."""
    return f"{machine()}\n\n```yaml\n{yaml}```"


def machine() -> str:
    """Return what bits depend on beside the configuration: versions, threads and processor."""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    processor = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    return f"{versions}, {torch.get_num_threads()} thread(s), {processor}"


def verdict_headline(verdict: Verdict) -> str:
    """Return the verdict in one sentence."""
    if verdict.parity:
        steps = plural(verdict.steps, "step")
        numbers = f"{verdict.numbers:,} numbers compared"
        return f"Identical, bit for bit: {steps}, {numbers}, 0 ULP everywhere.{uncompared(verdict)}"
    compared = sum(cell.compared for cell in verdict.cells.values())
    differing = sum(cell.differing for cell in verdict.cells.values())
    lone = any(cell.lone for cell in verdict.cells.values())
    if not compared and not lone:
        return "Nothing was compared: no step was made."
    if verdict.first is None:
        return f"No verdict: {compared:,} values are the same bits, but no optimizer step was seen."
    steps = f"in {plural(verdict.steps, 'step')}" if verdict.steps else "before the end of the first step"
    return f"Not identical: {differing:,} of {compared:,} values differ {steps}.{uncompared(verdict)}"


def plural(count: int, what: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "step"), plural(2, "step")
    ('1 step', '2 steps')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def uncompared(verdict: Verdict) -> str:
    """Return a sentence that names the values that could not be compared; empty if there are none."""
    if not verdict.unseen:
        return ""
    named = ", ".join(list(verdict.unseen)[:3]) + (", ..." if len(verdict.unseen) > 3 else "")
    values = "1 value was" if len(verdict.unseen) == 1 else f"{len(verdict.unseen):,} values were"
    return f" The content of {values} not compared: {named}."


def parity_sentence(verdicts: Mapping[str, Verdict], parity: str) -> str:
    """Return one sentence: how many of the trainings have parity, and where the others diverge.

    Args:
        verdicts: one for each training, by its name.
        parity: the words for parity in this sentence.
    """
    apart = ""
    for name, verdict in verdicts.items():
        if verdict.first:
            found, mismatch = verdict.first
            apart += f"; {name} diverges {lowered(place_in_words(found.place))}: {mismatch_in_words(mismatch)}"
    return f"{sum(verdict.parity for verdict in verdicts.values())} of {len(verdicts)} {parity}{apart}."


@dataclass
class StepCounts:
    """Counts of clipped and skipped steps of the reference: parity means little if none occurred."""

    steps: int = 0
    clipped: int = 0
    skipped: int = 0
    rates: int = 0
    """Number of steps whose learning rate differs from the step before."""
    latest_rate: float | None = None

    def add(self, step: StepMetrics) -> None:
        """Count one step."""
        self.steps += 1
        self.clipped += not step.skipped and step.clipped_norm < step.norm
        self.skipped += step.skipped
        self.rates += step.lr != self.latest_rate
        self.latest_rate = step.lr

    def __str__(self) -> str:
        return (
            f"Of {plural(self.steps, 'step')}, {self.clipped} clipped the gradient and {self.skipped} "
            f"{'was' if self.skipped == 1 else 'were'} skipped because it overflowed; "
            f"{plural(self.rates, 'different learning rate')}."
        )


def learning(metric: str, values: Sequence[Sequence[float]]) -> str:
    """Return the held-out ``metric`` of reference and candidate, first and last, in one sentence."""
    (before, _), (after, theirs) = values[0], values[-1]
    at_end = f"at the end {after:.4g} in the reference and {theirs:.4g} in the candidate"
    return f"Held-out {metric}: {before:.4g} at first; {at_end}."


def _cell_text(cell: VerdictCell | None) -> str:
    """Return the text of one cell of the table."""
    if cell is None or not cell.compared + cell.lone:
        return ""
    if not cell.compared:
        return "✗ in one only"
    return f"✗ {cell.differing:,}/{cell.compared:,}" if cell.differing + cell.lone else f"✓ {cell.compared:,}"


def _colored(cell: VerdictCell | None) -> str:
    color = "red" if cell and cell.differing + cell.lone else "green"
    return f"[{color}]{_cell_text(cell)}[/]"


def _parts(verdict: Verdict) -> list[Part]:
    seen = {part for (_, part), cell in verdict.cells.items() if cell.compared + cell.lone}
    return [part for part in Part if part in seen]
