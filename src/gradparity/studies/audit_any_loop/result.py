"""The audits of several loops as a result."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from rich.table import Column, Table

from gradparity.auditing.presentation.as_json import as_json
from gradparity.auditing.presentation.as_markdown import does_in_markdown, findings_in_markdown
from gradparity.auditing.presentation.draw_plot import draw_step
from gradparity.auditing.presentation.series import series
from gradparity.auditing.presentation.step_picture import step_picture
from gradparity.studies.audit_any_loop.outcome import AuditedLoop
from gradparity.studies.result import ANSWER_PAGE, Curve, Result, check_mark, plain_table
from gradparity.tensorboard.pages import table_page


def audits_result(loops: Sequence[AuditedLoop]) -> Result:
    """Return the result: the finding of each loop with its line, and whether its repair is clean."""
    found = sum(loop.finding is not None for loop in loops)
    clean = sum(loop.clean for loop in loops)
    table = audits_table(loops)
    return Result(
        sentence=f"{found} of {len(loops)} mistakes are found, {clean} of {len(loops)} repairs are clean.",
        holds=found == clean == len(loops),
        terminal=[table],
        pages={
            ANSWER_PAGE: table_page(table),
            **{f"2 each loop/{loop.name}": _page(loop) for loop in loops},
        },
        figures=_pictures(loops),
        curves=_curves(loops),
        records={"audits.json": {loop.name: _record(loop) for loop in loops}},
    )


def audits_table(loops: Sequence[AuditedLoop]) -> Table:
    """Return a row for each loop: what is wrong, the line of it, and whether its repair is clean."""
    table = plain_table("", Column("loop", no_wrap=True), "finding", "repaired")
    for loop in loops:
        findings = loop.wrong.findings
        words = "\n".join(
            f"{f.verdict} {f.rule.code}: {f.sentence}\n{f.line}: {f.line.source}" for f in findings
        ).replace("[", r"\[")
        table.add_row(loop.name, words or "nothing", check_mark(loop.clean))
    return table


def _page(loop: AuditedLoop) -> str:
    reported = [f"Reported: {f.rule.reported}" for f in loop.wrong.findings if f.rule.reported]
    return "\n\n".join([loop.mistake, *findings_in_markdown(loop.wrong), *reported, does_in_markdown(loop.wrong)])


def _pictures(loops: Sequence[AuditedLoop]) -> dict[str, Figure]:
    pictures = {loop.name: step_picture(loop.facts, loop.wrong.findings) for loop in loops}
    return {f"1 one step/{name}": draw_step(picture) for name, picture in pictures.items() if picture is not None}


def _curves(loops: Sequence[AuditedLoop]) -> dict[str, Mapping[str, Curve]]:
    return {loop.name: series(loop.facts) for loop in loops}


def _record(loop: AuditedLoop) -> dict[str, object]:
    return {"mistake": loop.mistake, "wrong": as_json(loop.wrong), "repaired": as_json(loop.repaired)}
