"""The scores as a table for the terminal and for TensorBoard, as a sentence, and for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Column, Table

from gradparity.studies.peers.answers import Answers
from gradparity.studies.peers.scores import PEERS, Score, harmless

MISSING = "not installed"


def rows(scores: Mapping[str, Sequence[Score]], peers: Sequence[str]) -> list[list[str]]:
    """Return a row for each group of scores, and one for all together if there are several groups."""
    everything = [one for group in scores.values() for one in group]
    groups = {**scores, "all": everything} if len(scores) > 1 else scores
    return [_row(name, group, peers) for name, group in groups.items()]


def _row(name: str, group: Sequence[Score], peers: Sequence[str]) -> list[str]:
    counts = [sum(one.diverged for one in group), sum(one.named for one in group), sum(one.placed for one in group)]
    return [name, str(len(group)), *map(str, counts), *(_cell(group, peer) for peer in peers)]


def _cell(group: Sequence[Score], peer: str) -> str:
    answers = [one.peers[peer] for one in group if peer in one.peers]
    if not answers:
        return MISSING
    expressed = sum(answer.expressed for answer in answers)
    return f"{sum(answer.caught for answer in answers)} of {expressed}" if expressed else "cannot be expressed"


def header(peers: Sequence[str]) -> list[str]:
    """Return the column titles."""
    return ["", "faults", "diverge", "named", "right place", *(f"{peer} catches" for peer in peers)]


def table(scores: Mapping[str, Sequence[Score]], peers: Sequence[str]) -> Table:
    """Return the scores as a table for the terminal."""
    name, *others = (title.replace(" ", "\n", 1) for title in header(peers))
    grid = Table(Column(name, no_wrap=True), *others, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows(scores, peers):
        grid.add_row(*row, style="bold" if row[0] == "all" else "")
    return grid


def each(scores: Mapping[str, Sequence[Score]]) -> str:
    """Return a line for each fault, for a TensorBoard text page."""
    told = (f"* `{one.fault.name}`: {_first(one)}. {_peers_said(one)}" for group in scores.values() for one in group)
    return "\n".join(told)


def _peers_said(one: Score) -> str:
    return " ".join(
        f"{peer}: {'; '.join(a.raised) if a.caught else 'nothing' if a.expressed else 'cannot be expressed'}."
        for peer, a in one.peers.items()
    )


def sentence(scores: Sequence[Score], right: Mapping[str, Answers]) -> str:
    """Return the results of all faults in one sentence."""
    diverged, named, placed = (sum(getattr(one, what) for one in scores) for what in ("diverged", "named", "placed"))
    told = f"{diverged} of {len(scores)} faults diverge, {named} are named, {placed} at the documented place"
    for peer, alarm in right.items():
        wrong = [one.peers[peer] for one in scores if not harmless(one.fault)]
        caught, cannot = sum(a.caught for a in wrong), sum(not a.expressed for a in wrong)
        rounding = sum(one.peers[peer].caught for one in scores if harmless(one.fault))
        told += f"; {peer} catches {caught} of {len(wrong) - cannot} bugs that it can be told of ({cannot} it cannot)"
        told += f", {'an alarm' if alarm.caught else 'no alarm'} at the right loop"
        told += f", {rounding} at mere rounding" if rounding else ""
    return told + "."


def indistinguishable(scores: Sequence[Score]) -> list[list[str]]:
    """Return the groups of faults that behave alike, bit for bit."""
    groups = {frozenset({one.fault.name, *one.same}) for one in scores if one.same}
    return sorted(sorted(group) for group in groups)


def as_json(scores: Mapping[str, Sequence[Score]], right: Mapping[str, Answers]) -> dict[str, Any]:
    """Return all results, for programs."""
    return {
        "right loop": {peer: _said(answers) for peer, answers in right.items()},
        "not installed": [peer for peer in PEERS if peer not in right],
        "faults": [
            {
                "name": one.fault.name,
                "theme": theme,
                "kind": one.fault.kind,
                "diverged": one.diverged,
                "named": one.named,
                "same": one.same,
                "first": _first(one),
                "placed": one.placed,
                "peers": {peer: _said(answers) for peer, answers in one.peers.items()},
            }
            for theme, group in scores.items()
            for one in group
        ],
    }


def _first(one: Score) -> str:
    return str(one.first or "nowhere")


def _said(answers: Answers) -> dict[str, Any]:
    return {"expressed": answers.expressed, "raised": answers.raised, "passed": answers.passed}
