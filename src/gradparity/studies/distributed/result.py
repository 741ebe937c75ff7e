"""The outcomes of all ranks as a result."""

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Column, Table

from gradparity.studies.distributed.compare_ranks import RankOutcome
from gradparity.studies.distributed.sharded_trial import ShardedPart
from gradparity.studies.distributed.trial import Trial
from gradparity.studies.result import Result, check_mark, plain_table
from gradparity.tensorboard.pages import table_page


def distributed_result(
    loops: Mapping[str, tuple[Trial, Sequence[RankOutcome]]], drift: RankOutcome, parts: Sequence[ShardedPart]
) -> Result:
    """Return the result of three measurements.

    Args:
        loops: each loop compared with DDP, on every rank.
        drift: rank 0 of the loop that differentiates through DDP by ``autograd.grad``.
        parts: the parts of the manual route, tried on FSDP2's shards.
    """
    tables = [_loop_table(loops), _drift_table(drift), _sharded_table(parts)]
    by_hand = [pair for pair in loops.values() if pair[0].candidate == "manual" and pair[0].fault is None]
    same = [all(outcome.parity for outcome in outcomes) for _, outcomes in by_hand]
    ranks, steps = len(next(iter(loops.values()))[1]), len(drift.across)
    order = (
        "The order of three or more terms rounds their sum, and DDP's order is the backend's: only 'in rank order' has "
        "its bits."
    )
    return Result(
        sentence=(
            f"By hand, {sum(same)} of {len(same)} trainings equal DDP's on all {ranks} ranks, bit for bit; with "
            f"autograd.grad through DDP, ranks differ by {drift.across[-1].parameters.relative_norm:.0%} after "
            f"{steps} steps, and nothing raises."
        ),
        holds=all(same),
        terminal=[*tables, *([order] if ranks > 2 else [])],
        pages={f"{number} table": table_page(table) for number, table in enumerate(tables, start=2)},
        curves={
            "unsynchronised_ranks": {
                f"ranks apart/{part}": {step: getattr(at, part).relative_norm for step, at in enumerate(drift.across)}
                for part in ("gradients", "parameters")
            }
        },
    )


def _loop_table(found: Mapping[str, tuple[Trial, Sequence[RankOutcome]]]) -> Table:
    """Return a table that compares each loop with DDP on every rank, and its ranks with rank 0."""
    table = plain_table(
        "Each loop compared with DDP on every rank, and its ranks with rank 0",
        "loop", "model", "equals DDP", "ranks alike", "first difference",
    )  # fmt: skip
    for name, (trial, outcomes) in found.items():
        same = _marks([outcome.first is None for outcome in outcomes])
        one = [not any(rank in step.differing for step in outcomes[0].across) for rank in range(len(outcomes))]
        model = f"{trial.config.tasks[0]}, {trial.config.precision}"
        table.add_row(name, model, same, _marks(one), first_of(outcomes))
    return table


def first_of(outcomes: Sequence[RankOutcome]) -> str:
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


def _drift_table(outcome: RankOutcome) -> Table:
    """Return a table of the distance between ranks that do not exchange their gradients."""
    heads = ("after step", "gradients", "parameters", "parameters that differ")
    table = plain_table(
        "autograd.grad through DDP: how far the other ranks are from rank 0, relative to its norm",
        *(Column(head, justify="right") for head in heads),
    )
    last = len(outcome.across) - 1
    for step in sorted({s for s in (0, 1, 4, 9, 19, 49, last) if s <= last}):
        at = outcome.across[step]
        share = f"{at.parameters.differing:,} of {at.parameters.elements:,}"
        table.add_row(str(step), f"{at.gradients.relative_norm:.2g}", f"{at.parameters.relative_norm:.2g}", share)
    return table


def _sharded_table(found: Iterable[ShardedPart]) -> Table:
    """Return a table of the parts that work on FSDP2's shards, and those that do not."""
    table = plain_table("FSDP2 (fully_shard)", "part", "", "seen")
    for measured in found:
        table.add_row(measured.what, check_mark(measured.works), measured.seen)
    return table


def _marks(holds: Iterable[bool]) -> str:
    return " ".join(map(check_mark, holds))
