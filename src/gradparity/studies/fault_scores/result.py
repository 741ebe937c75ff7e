"""The scores of many faults as a result."""

from collections.abc import Mapping, Sequence

from rich.table import Column, Table

from gradparity.studies.fault_scores.score import Score
from gradparity.studies.result import ANSWER_PAGE, Result, plain_table
from gradparity.tensorboard.pages import table_page


def fault_result(scores: Mapping[str, Sequence[Score]], *, each: bool) -> Result:
    """Return the result of the scores by theme; with ``each``, the table has a row for each fault."""
    everything = [one for group in scores.values() for one in group]
    table = score_table({one.fault.name: [one] for one in everything} if each else scores)
    diverged, named, placed = _counts(everything)
    alike = [
        f"Bit for bit the same, so that no check can distinguish them here: {', '.join(names)}."
        for names in indistinguishable(everything)
    ]
    return Result(
        sentence=(
            f"{diverged} of {len(everything)} faults diverge, {named} are named, {placed} at the documented place."
        ),
        holds=all(one.diverged and one.named for one in everything),
        terminal=[table, *alike, ""],
        pages={
            ANSWER_PAGE: table_page(table),
            "2 each fault": "\n".join(f"* `{one.fault.name}`: {one.first or 'nowhere'}." for one in everything),
        },
        records={"faults.json": {"faults": [_record(theme, one) for theme in scores for one in scores[theme]]}},
    )


def score_table(scores: Mapping[str, Sequence[Score]]) -> Table:
    """Return a row for each group of scores, and one for all together if there are several groups."""
    everything = [one for group in scores.values() for one in group]
    table = plain_table("", Column("", no_wrap=True), "faults", "diverge", "named", "right\nplace")
    for name, group in ({**scores, "all": everything} if len(scores) > 1 else scores).items():
        table.add_row(name, str(len(group)), *map(str, _counts(group)), style="bold" if name == "all" else "")
    return table


def _counts(group: Sequence[Score]) -> tuple[int, int, int]:
    return sum(one.diverged for one in group), sum(one.named for one in group), sum(one.placed for one in group)


def indistinguishable(scores: Sequence[Score]) -> list[list[str]]:
    """Return the groups of faults that behave alike, bit for bit."""
    groups = {frozenset({one.fault.name, *one.same}) for one in scores if one.same}
    return sorted(sorted(group) for group in groups)


def _record(theme: str, one: Score) -> dict[str, object]:
    return {
        "name": one.fault.name,
        "theme": theme,
        "kind": one.fault.kind,
        "diverged": one.diverged,
        "named": one.named,
        "same": one.same,
        "first": str(one.first or "nowhere"),
        "placed": one.placed,
    }
