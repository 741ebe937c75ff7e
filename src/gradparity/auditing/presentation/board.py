"""The result of an audit in TensorBoard: the verdict as text, a picture of one step, and plots over the steps."""

import re
from collections.abc import Collection
from pathlib import Path

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.presentation.as_markdown import (
    does_in_markdown,
    findings_in_markdown,
    plain,
    unexercised_in_markdown,
)
from gradparity.auditing.presentation.draw_plot import draw_step
from gradparity.auditing.presentation.series import OVERLAID, names, series
from gradparity.auditing.presentation.step_picture import step_picture
from gradparity.auditing.report import Report, headline
from gradparity.tensorboard.events import Events

VERDICT, DOES, STEP = "1 verdict", "2 what the loop does", "0 glance/one step"


def write_board(folder: Path, found: Report, facts: RunFacts, target: str) -> None:
    """Write the result of an audit to ``folder``, as one run of TensorBoard.

    Raises:
        DiskError: if a file cannot be written.
    """
    with Events(folder) as events:
        found_series = series(facts)
        events.add_custom_scalars(_charts(facts, found_series))
        verdict = [f"**gradparity audit of {plain(target)}: {headline(found)}**", *findings_in_markdown(found)]
        events.add_text(VERDICT, "\n\n".join(verdict + [f"Note: {plain(note)}" for note in found.notes]))
        not_seen = unexercised_in_markdown(found)
        events.add_text(DOES, does_in_markdown(found) + (f"\n\nNot exercised:\n\n{not_seen}" if not_seen else ""))
        picture = step_picture(facts, found.findings)
        if picture is not None:
            events.add_figure(STEP, draw_step(picture), close=False)
        for tag, values in found_series.items():
            for step, value in values.items():
                events.add_scalar(tag, value, step)


def _charts(facts: RunFacts, there: Collection[str]) -> dict[str, dict[str, list[str | list[str]]]]:
    """Return the charts of *Custom Scalars*: the least and the largest weight in one, the norms in another."""
    return {
        "audit": {
            f"{name}: {what}": ["Multiline", [re.escape(tag.format(name)) for tag in tags]]
            for name in names(facts).values()
            for what, tags in OVERLAID.items()
            if tags[0].format(name) in there
        }
    }
