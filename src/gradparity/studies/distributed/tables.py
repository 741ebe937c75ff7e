"""The results of all ranks as tables for the terminal and as sentences."""

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table

from gradparity.studies.distributed.parity import Outcome
from gradparity.studies.distributed.sharded_trial import Measured
from gradparity.studies.distributed.trial import Trial


def routes(found: Mapping[str, tuple[Trial, Sequence[Outcome]]]) -> Table:
    """Return a table that compares each loop with DDP on every rank, and its ranks with rank 0."""
    table = _table("Each loop held against DDP on every rank, and its ranks against rank 0")
    for head in ("loop", "model", "the same as DDP", "one model", "first difference"):
        table.add_column(head)
    for name, (trial, outcomes) in found.items():
        same = _marks([outcome.first is None for outcome in outcomes])
        one = [not any(rank in step.differing for step in outcomes[0].across) for rank in range(len(outcomes))]
        model = f"{trial.config.tasks[0]}, {trial.config.precision}"
        table.add_row(name, model, same, _marks(one), first_of(outcomes))
    return table


def first_of(outcomes: Sequence[Outcome]) -> str:
    """Return in words the rank, step, microbatch, phase and part of the first difference, or that there is none."""
    differing = [outcome for outcome in outcomes if outcome.first]
    if not differing:
        return f"none in {outcomes[0].steps} steps, {sum(o.numbers for o in outcomes):,} numbers"
    first = differing[0].first
    assert first
    place = first.place
    whose = "every rank" if len(differing) == len(outcomes) else f"rank {differing[0].rank}"
    microbatch = "" if place.microbatch is None else f"/{place.microbatch}"
    return f"{whose}, {place.step}{microbatch}/{place.phase.name.lower()}, {first.part}"


def drift(outcome: Outcome) -> Table:
    """Return a table of the differences of one loop's ranks from rank 0, step by step."""
    table = _table("autograd.grad through DDP: how far the other ranks are from rank 0, relative to its norm")
    for head in ("after step", "gradients", "parameters", "parameters that differ"):
        table.add_column(head, justify="right")
    last = len(outcome.across) - 1
    for step in sorted({s for s in (0, 1, 4, 9, 19, 49, last) if s <= last}):
        at = outcome.across[step]
        share = f"{at.parameters.differing:,} of {at.parameters.elements:,}"
        table.add_row(str(step), f"{at.gradients.relative_norm:.2g}", f"{at.parameters.relative_norm:.2g}", share)
    return table


def sharded(found: Iterable[Measured]) -> Table:
    """Return a table of the parts that work on FSDP2's shards, and those that do not."""
    table = _table("FSDP2 (fully_shard)")
    for head in ("what", "", "seen"):
        table.add_column(head)
    for measured in found:
        table.add_row(measured.what, _marks([measured.works]), measured.seen)
    return table


def _marks(holds: Iterable[bool]) -> str:
    return " ".join("[green]✓[/]" if each else "[red]✗[/]" for each in holds)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
