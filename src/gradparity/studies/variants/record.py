"""Outcomes on disk: TensorBoard files to look at, and a JSONL file with exact figures."""

import json
import math
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gradparity.files.append_only import AppendOnlyFile
from gradparity.parity.metrics import Figures, finite
from gradparity.parity.place import Place
from gradparity.studies.variants import tables
from gradparity.studies.variants.measure import First, Kept, Outcome
from gradparity.studies.variants.picture import pictures
from gradparity.tensorboard.events import Events
from gradparity.tensorboard.pages import ANSWER, in_markdown

FIGURES = "routes.jsonl"


def write(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the plots and reasons of all variants, and for each variant a TensorBoard run and a line of JSON."""
    with Events(folder / ANSWER) as board:
        for title, figure in pictures(outcomes).items():
            board.add_figure(f"1 glance/{title}", figure, close=False)
        board.add_text("1 answer", f"**{tables.answer(outcomes)}**\n\n{whys(outcomes)}")
    with closing(AppendOnlyFile(folder / FIGURES)) as lines:
        for outcome in outcomes:
            lines.write(f"{json.dumps(as_record(outcome))}\n".encode())
            with Events(folder / re.sub(r"\W+", "-", outcome.variant.name)) as board:
                write_growth(board, outcome.growth)


def write_growth(board: Events, growth: Sequence[Figures]) -> None:
    """Write the parameters' difference after each step. TensorBoard keeps float32, so ULP are written as logarithms."""
    for step, figures in enumerate(growth, start=1):
        board.add_scalar("2 parameters/1 relative norm", figures.relative_norm, step)
        board.add_scalar("2 parameters/2 log10(1 + median ULP)", math.log10(1 + figures.median_ulp), step)
        board.add_scalar("2 parameters/3 log10(1 + largest ULP)", math.log10(1 + figures.max_ulp), step)
        board.add_scalar("2 parameters/4 largest absolute", figures.max_absolute, step)
        board.add_scalar("2 parameters/5 largest relative", figures.max_relative, step)


def whys(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table for a TensorBoard text page: each variant's predictions, their results and reasons."""
    rows = [
        (outcome.variant.name, f"{tables.like(kept)}: {_mark(kept, outcome)}", outcome.variant.why)
        for outcome in outcomes
        for kept in outcome.kept
    ]
    return in_markdown(("variant", "its first difference, as predicted, from", "why"), *rows)


def _mark(kept: Kept, outcome: Outcome) -> str:
    predicted, measured = (tables.where(place, outcome) for place in (kept.predicted, kept.measured))
    return f"{measured} ✓" if kept.holds else f"{measured} ✗ (predicted: {predicted})"


def as_record(outcome: Outcome) -> dict[str, object]:
    """Return an outcome for JSON: exact figures, ``null`` where a figure is not finite."""
    return {
        "variant": outcome.variant.name,
        "first": _first(outcome.first),
        "first in fp64": _first(outcome.first_in_fp64),
        "predictions": [
            {
                "the same bits as": tables.like(kept),
                "predicted": _place(kept.predicted),
                "measured": _place(kept.measured),
                "holds": kept.holds,
            }
            for kept in outcome.kept
        ],
        "parameters after each step": [finite(figures) for figures in outcome.growth],
    }


def _first(first: First | None) -> dict[str, object] | None:
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
