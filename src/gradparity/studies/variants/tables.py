"""Outcomes as tables for the terminal, at most 120 columns wide, and as sentences."""

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from gradparity.parity.kinds import Kind
from gradparity.parity.metrics import Figures
from gradparity.parity.place import Place
from gradparity.studies.variants.measure import First, Kept, Outcome

SIZES = ("ULP max", "median", "absolute", "relative", "norm")
PLACE = "step/microbatch/phase"


def firsts(outcomes: Iterable[Outcome]) -> Table:
    """Return a table of each variant's first difference from the reference: its place and its size."""
    table = _table("The first difference from the reference", "variant", PLACE, "tensor", *SIZES, "in fp64")
    for outcome in outcomes:
        first, name = outcome.first, outcome.variant.name
        if first is None:
            table.add_row(name, where(None, outcome), *[""] * 7)
        else:
            table.add_row(
                name, short(first.place), first.mismatch.name, *sizes(first), in_fp64(first, outcome.first_in_fp64)
            )
    return table


def growths(outcomes: Sequence[Outcome]) -> Table:
    """Return a table of the parameters' difference from the reference: the norm on the way, all figures at the end."""
    steps = len(outcomes[0].growth)
    after = sorted({min(step, steps) for step in (1, 10, 50)})
    heads = [f"norm, {step}" for step in after]
    table = _table(f"The parameters, after so many steps and after {steps}", "variant", *heads, *SIZES)
    for outcome in outcomes:
        norms = (f"{outcome.growth[step - 1].relative_norm:.1e}" for step in after)
        last = outcome.growth[-1]
        table.add_row(outcome.variant.name, *map(_zero, (*norms, *figures(last))))
    return table


def predictions(outcomes: Iterable[Outcome]) -> Table:
    """Return a table of each prediction beside its measurement: the loop matched bit for bit, and until which place."""
    table = _table(
        "Prediction beside measurement: the place of the first difference, if any",
        "variant", "the same bits as", "predicted", "measured", "",
    )  # fmt: skip
    for outcome in outcomes:
        for kept in outcome.kept:
            mark = "[green]✓[/]" if kept.holds else "[red]✗[/]"
            predicted, measured = where(kept.predicted, outcome), where(kept.measured, outcome)
            table.add_row(outcome.variant.name, like(kept), predicted, measured, mark)
    return table


def like(kept: Kept) -> str:
    """Return the name of the loop that a variant is predicted to match, and the part if only one is meant."""
    part = kept.prediction.part
    return kept.prediction.like.name + (f", {part}" if part else "")


def short(place: Place) -> str:
    """Return a place in a few characters, such as ``0/2/accumulated``."""
    microbatch = "–" if place.microbatch is None else place.microbatch
    return f"{place.step}/{microbatch}/{place.phase.name.lower()}"


def where(place: Place | None, outcome: Outcome) -> str:
    """Return a place in words."""
    return short(place) if place else f"nowhere in {len(outcome.growth)} steps"


def sizes(first: First) -> list[str]:
    """Return the figures of a first difference, or its kind if it is not a difference in bits."""
    if first.figures:
        return figures(first.figures)
    what = "None here" if first.mismatch.kind == Kind.PRESENCE else str(first.mismatch.kind)
    return [what, "", "", "", ""]


def figures(of: Figures) -> list[str]:
    """Return the figures as texts, in the order of ``SIZES``."""
    numbers = (of.max_absolute, of.max_relative, of.relative_norm)
    return [f"{of.max_ulp:,}", f"{of.median_ulp:,}", *(f"{number:.1e}" for number in numbers)]


def in_fp64(first: First, double: First | None) -> str:
    """Return the size of the difference in fp64 relative to ``first``, as a power of two; rounding gives -29."""
    if not first.figures or not double or not double.figures:
        return ""
    return f"2^{math.log2(double.figures.relative_norm / first.figures.relative_norm):.1f}"


def answer(outcomes: Sequence[Outcome]) -> str:
    """Return the experiment's answer in one sentence."""
    kept = [k for outcome in outcomes for k in outcome.kept]
    same = [outcome.variant.name for outcome in outcomes if outcome.first is None]
    return (
        f"{sum(k.holds for k in kept)} of {len(kept)} predictions hold bit for bit and to the place; "
        f"{len(outcomes) - len(same)} of {len(outcomes)} variants differ from the reference."
    )


def _zero(text: str) -> str:
    return "0" if text == "0.0e+00" else text


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head in SIZES or head.startswith(("norm", "in ")) else "left")
    return table
