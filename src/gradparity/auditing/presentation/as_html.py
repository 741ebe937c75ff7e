"""The result of an audit as one HTML page: no script, nothing loaded, readable in light and in dark."""

from collections.abc import Iterator
from html import escape

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.finding import RuleFinding, RuleVerdict
from gradparity.auditing.presentation.draw_svg import STYLE, step_svg
from gradparity.auditing.presentation.step_picture import step_picture
from gradparity.auditing.report import Report, headline

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --soft: #57606a; --band: #f0f3f6; --grid: #d0d7de;
  --event: #2f6f9f; --inside: #ffffff; --wrong: #c62828; --wrong-text: #c62828; --unusual: #9a6700;
  --unusual-text: #855800; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --back: #0d1117; --soft: #9da7b1; --band: #1c2330; --grid: #3d444d; --event: #79b8e8;
    --inside: #0d1117; --wrong: #ff8a80; --wrong-text: #ff8a80; --unusual: #e3b341; --unusual-text: #e3b341; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 64rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 0.3rem; } p, ul { margin: 0.3rem 0; }
pre { background: var(--band); padding: 0.5rem 0.8rem; overflow-x: auto; margin: 0.4rem 0; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
.soft { color: var(--soft); }
.verdict.wrong { color: var(--wrong-text); } .verdict.unusual { color: var(--unusual-text); }
.picture { overflow-x: auto; padding-bottom: 0.5rem; }
"""  # fmt: skip


def as_html(found: Report, facts: RunFacts, target: str, ending: str = "") -> str:
    """Return a report as a page that stands alone.

    Args:
        found: the report.
        facts: the facts, for the picture of one step.
        target: the script, for the heading.
        ending: a sentence on how the script ended, if it did not just return.
    """
    title = f"gradparity audit of {target}"
    body = [f"<h1>{escape(title)}: {escape(headline(found))}</h1>"]
    body += [part for finding in found.findings for part in _finding(finding)]
    if ending:
        body.append(f"<p>{escape(ending)}</p>")
    picture = step_picture(facts, found.findings)
    if picture is not None:
        body += [f"<h2>{escape(picture.title)}</h2>", f'<div class="picture">{step_svg(picture)}</div>']
        body.append(f'<p class="soft">{escape(LEGEND)}</p>')
    does = [(item.text, str(item.line) if item.line is not None and item.line.number else "") for item in found.does]
    body += _listed("What the loop does", does)
    body += _listed("Not exercised", [(words, "") for words in found.unexercised])
    body += [f"<p>Note: {escape(note)}</p>" for note in found.notes]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}{STYLE}</style>'
    lines = ["<!doctype html>", f'<html lang="en"><head>{head}</head>', "<body>", *body, "</body></html>"]
    return "\n".join(lines) + "\n"


LEGEND = (
    "Time runs to the right. A forward shows the number of its tokens. A backward shows the weight of one of them, "
    "relative to a mean over all tokens of the step: 1 if the step is one mean. A code marks the event that breaks "
    "this rule, a dashed frame the one that it collides with."
)


def _finding(finding: RuleFinding) -> Iterator[str]:
    rule = finding.rule
    where = f" (first at {finding.where})" if finding.where else ""
    yield f'<h3><span class="verdict {finding.verdict}">{finding.verdict}</span> {rule.code} {escape(rule.name)}</h3>'
    yield f"<p>{escape(finding.sentence + where)}</p>"
    if finding.places:
        yield _code("\n".join(finding.places))
    if finding.verdict == RuleVerdict.UNUSUAL and rule.right_in:
        yield f"<p>Right in: {escape(rule.right_in)}.</p>"
    yield f"<p>Write instead:</p>{_code(rule.instead)}"
    if rule.reported:
        yield f'<p class="soft">Reported: <a href="{escape(rule.reported)}">{escape(rule.reported)}</a></p>'


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


def _listed(title: str, items: list[tuple[str, str]]) -> Iterator[str]:
    if items:
        yield f"<h2>{escape(title)}</h2><ul>"
        for text, where in items:
            yield f"<li>{escape(text)}" + (f" <code>{escape(where)}</code>" if where else "") + "</li>"
        yield "</ul>"
