"""The outcomes of variants as a result; tables are at most 120 columns wide."""

import math
import re
from collections.abc import Iterable, Sequence

from rich.table import Column, Table
from rich.text import Text

from gradparity.parity.difference_kinds import Kind
from gradparity.parity.figures import Figures, finite
from gradparity.parity.place_in_training import Place
from gradparity.studies.result import ANSWER_PAGE, Curve, Result, check_mark, plain_table
from gradparity.studies.routes_that_differ.growth_plots import pictures
from gradparity.studies.routes_that_differ.measure import FirstDifference, MeasuredPrediction, VariantOutcome
from gradparity.tensorboard.pages import markdown_table

SIZES = ("ULP max", "median", "absolute", "relative", "norm")
PLACE = "step/microbatch/phase"


def variants_result(outcomes: Sequence[VariantOutcome]) -> Result:
    """Return the result of all variants: their first differences, growth and predictions."""
    kept = [one for outcome in outcomes for one in outcome.kept]
    differing = sum(outcome.first is not None for outcome in outcomes)
    whys = [Text.assemble((o.variant.name, "bold"), f": {o.variant.why}") for o in outcomes]
    return Result(
        sentence=(
            f"{sum(one.holds for one in kept)} of {len(kept)} predictions hold bit for bit and to the place; "
            f"{differing} of {len(outcomes)} variants differ from the reference."
        ),
        holds=all(one.holds for one in kept),
        terminal=[first_table(outcomes), growth_table(outcomes), prediction_table(outcomes), *whys, ""],
        pages={ANSWER_PAGE: reasons(outcomes)},
        figures={f"1 glance/{title}": figure for title, figure in pictures(outcomes).items()},
        curves={re.sub(r"\W+", "-", outcome.variant.name): _growth_curves(outcome.growth) for outcome in outcomes},
        records={"routes.jsonl": [_record(outcome) for outcome in outcomes]},
    )


def first_table(outcomes: Iterable[VariantOutcome]) -> Table:
    """Return a table of each variant's first difference from the reference: its place and its size."""
    table = _table("The first difference from the reference", "variant", PLACE, "tensor", *SIZES, "in fp64")
    for outcome in outcomes:
        first, name = outcome.first, outcome.variant.name
        if first is None:
            table.add_row(name, _where(None, outcome), *[""] * 7)
        else:
            table.add_row(
                name,
                short_place(first.place),
                first.mismatch.name,
                *_sizes(first),
                _fp64_ratio(first, outcome.first_in_fp64),
            )
    return table


def growth_table(outcomes: Sequence[VariantOutcome]) -> Table:
    """Return a table of the parameters' difference from the reference: the norm on the way, all figures at the end."""
    steps = len(outcomes[0].growth)
    after = sorted({min(step, steps) for step in (1, 10, 50)})
    heads = [f"norm, {step}" for step in after]
    table = _table(f"The parameters, after so many steps and after {steps}", "variant", *heads, *SIZES)
    for outcome in outcomes:
        norms = (f"{outcome.growth[step - 1].relative_norm:.1e}" for step in after)
        last = outcome.growth[-1]
        table.add_row(outcome.variant.name, *map(_zero, (*norms, *_figures(last))))
    return table


def prediction_table(outcomes: Iterable[VariantOutcome]) -> Table:
    """Return a table of each prediction beside its measurement: the loop matched bit for bit, and until which place."""
    table = _table(
        "Prediction and measurement: the place of the first difference, if any",
        "variant", "the same bits as", "predicted", "measured", "",
    )  # fmt: skip
    for outcome in outcomes:
        for kept in outcome.kept:
            predicted, measured = _where(kept.predicted, outcome), _where(kept.measured, outcome)
            table.add_row(outcome.variant.name, _like(kept), predicted, measured, check_mark(kept.holds))
    return table


def _like(kept: MeasuredPrediction) -> str:
    """Return the name of the loop that a variant is predicted to match, and the part if only one is meant."""
    part = kept.prediction.part
    return kept.prediction.like.name + (f", {part}" if part else "")


def short_place(place: Place) -> str:
    """Return a place in a few characters, such as ``0/2/accumulated``."""
    microbatch = "–" if place.microbatch is None else place.microbatch
    return f"{place.step}/{microbatch}/{place.phase.name.lower()}"


def _where(place: Place | None, outcome: VariantOutcome) -> str:
    """Return a place in words."""
    return short_place(place) if place else f"nowhere in {len(outcome.growth)} steps"


def _sizes(first: FirstDifference) -> list[str]:
    """Return the figures of a first difference, or its kind if it is not a difference in bits."""
    if first.figures:
        return _figures(first.figures)
    what = "None here" if first.mismatch.kind == Kind.PRESENCE else str(first.mismatch.kind)
    return [what, "", "", "", ""]


def _figures(of: Figures) -> list[str]:
    """Return the figures as texts, in the order of ``SIZES``."""
    numbers = (of.max_absolute, of.max_relative, of.relative_norm)
    return [f"{of.max_ulp:,}", f"{of.median_ulp:,}", *(f"{number:.1e}" for number in numbers)]


def _fp64_ratio(first: FirstDifference, double: FirstDifference | None) -> str:
    """Return the size of the difference in fp64 relative to ``first``, as a power of two; rounding gives -29."""
    if not first.figures or not double or not double.figures:
        return ""
    return f"2^{math.log2(double.figures.relative_norm / first.figures.relative_norm):.1f}"


def _zero(text: str) -> str:
    return "0" if text == "0.0e+00" else text


def _table(title: str, *heads: str) -> Table:
    numbers = (*SIZES, "in fp64")
    right = (head in numbers or head.startswith("norm") for head in heads)
    columns = (Column(head, justify="right" if r else "left") for head, r in zip(heads, right, strict=True))
    return plain_table(title, *columns)


def _growth_curves(growth: Sequence[Figures]) -> dict[str, Curve]:
    """Return the parameters' difference after each step. TensorBoard keeps float32, so ULP are logarithms."""
    curves = {
        "1 relative norm": [figures.relative_norm for figures in growth],
        "2 log10(1 + median ULP)": [math.log10(1 + figures.median_ulp) for figures in growth],
        "3 log10(1 + largest ULP)": [math.log10(1 + figures.max_ulp) for figures in growth],
        "4 largest absolute": [figures.max_absolute for figures in growth],
        "5 largest relative": [figures.max_relative for figures in growth],
    }
    return {f"2 parameters/{tag}": dict(enumerate(values, start=1)) for tag, values in curves.items()}


def reasons(outcomes: Sequence[VariantOutcome]) -> str:
    """Return a Markdown table for a TensorBoard text page: each variant's predictions, their results and reasons."""
    rows = [
        (outcome.variant.name, f"{_like(kept)}: {_mark(kept, outcome)}", outcome.variant.why)
        for outcome in outcomes
        for kept in outcome.kept
    ]
    return markdown_table(("variant", "its first difference, as predicted, from", "why"), *rows)


def _mark(kept: MeasuredPrediction, outcome: VariantOutcome) -> str:
    predicted, measured = (_where(place, outcome) for place in (kept.predicted, kept.measured))
    return f"{measured} ✓" if kept.holds else f"{measured} ✗ (predicted: {predicted})"


def _record(outcome: VariantOutcome) -> dict[str, object]:
    """Return an outcome for JSON: exact figures, ``null`` where a figure is not finite."""
    return {
        "variant": outcome.variant.name,
        "first": _first(outcome.first),
        "first in fp64": _first(outcome.first_in_fp64),
        "predictions": [
            {
                "the same bits as": _like(kept),
                "predicted": _place(kept.predicted),
                "measured": _place(kept.measured),
                "holds": kept.holds,
            }
            for kept in outcome.kept
        ],
        "parameters after each step": [finite(_figures) for _figures in outcome.growth],
    }


def _first(first: FirstDifference | None) -> dict[str, object] | None:
    if first is None:
        return None
    mismatch = first.mismatch
    return {
        **_place(first.place),
        "part": mismatch.part,
        "tensor": mismatch.name,
        "kind": mismatch.kind,
        "figures": first.figures and finite(first.figures),
    }


def _place(place: Place | None) -> dict[str, object]:
    if place is None:
        return {}
    return {"step": place.step, "microbatch": place.microbatch, "phase": place.phase.name.lower()}
