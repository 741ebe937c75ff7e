"""Do the frameworks that people train with make the updates of the reference step, bit for bit?

You will see framework × scenario, each with the loop of its documentation, watched on one rank and again on two.
"identical" holds for every phase of every step on every rank; any other cell is a first difference, explained below.
"""

import json
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from gradparity import board
from gradparity.arguments import Parser, exits
from gradparity.board.events import Events
from gradparity.errors import writing
from gradparity.frameworks.on_ranks import ON_RANKS, outcomes_on_ranks
from gradparity.frameworks.scenario import RANK_SCENARIOS, SCENARIOS
from gradparity.frameworks.table import as_records, cell, differences, in_places, markdown, measured, table
from gradparity.frameworks.watch import FRAMEWORKS, Outcome, outcome


@exits("frameworks")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="frameworks, or beginnings of their names: --only lightning,ignite")
    parser.add_argument("--scenario", default="", help="scenarios, or beginnings of their names: --scenario 'K =,bf16'")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for TensorBoard files and JSON")
    given = parser.parse_args(arguments)
    alone = chosen(given.only, FRAMEWORKS), chosen(given.scenario, SCENARIOS)
    on_ranks = chosen(given.only, ON_RANKS), chosen(given.scenario, RANK_SCENARIOS)
    if not alone[0] and not on_ranks[0]:
        parser.error(f"--only: choose from {'; '.join({**FRAMEWORKS, **ON_RANKS})}")
    if not all(alone) and not all(on_ranks):
        names = [*(SCENARIOS if alone[0] else ()), *(RANK_SCENARIOS if on_ranks[0] else ())]
        parser.error(f"--scenario: choose from {'; '.join(names)}")
    folder = board.new_folder(given.output / "frameworks")
    torch.set_num_threads(1)
    console = Console(highlight=False)
    tables = dict[str, dict[str, dict[str, Outcome]]]()
    if all(alone):
        tables["1 table"] = train_alone(*alone)
        console.print(table(tables["1 table"]))
    if all(on_ranks):
        tables["2 on two ranks"] = outcomes_on_ranks(*on_ranks)
        console.print(table(tables["2 on two ranks"]))
    outcomes = {scenario: row for rows in tables.values() for scenario, row in rows.items()}
    for number, (cause, places) in enumerate(differences(outcomes).items(), start=1):
        console.print(f"\n[bold]{number}. {in_places(places)}[/]", soft_wrap=True)
        console.print(cause, soft_wrap=True, markup=False)
        framework, (scenario, *_) = next(iter(places.items()))
        if cause != (shown := measured(outcomes[scenario][framework])):
            console.print(f"[dim]{framework}, {scenario}: {' '.join(shown.split())}[/]", soft_wrap=True)

    with writing(folder / "frameworks.json"):
        (folder / "frameworks.json").write_text(json.dumps(as_records(outcomes), indent=1))
    with Events(folder) as writer:
        for page, rows in tables.items():
            writer.add_text(f"frameworks/{page}", markdown(rows))
    cells = [one for row in outcomes.values() for one in row.values()]
    identical = sum(one.identical for one in cells)
    none = sum(cell(one) in ("refuses", "not installed") for one in cells)
    console.print(
        f"\n[bold]{identical} of {len(cells)} cells are identical to the reference, bit for bit;[/] "
        f"{len(cells) - identical - none} have a first difference, {none} no verdict.",
        soft_wrap=True,
    )
    console.print(f"{board.tensorboard_command(folder)}   # then open: Text, frameworks", soft_wrap=True)
    return 0


def train_alone(frameworks: Sequence[str], scenarios: Sequence[str]) -> dict[str, dict[str, Outcome]]:
    return {
        scenario: {name: outcome(FRAMEWORKS[name], SCENARIOS[scenario]) for name in frameworks}
        for scenario in track(scenarios, "Training", console=Console(stderr=True), disable=not sys.stderr.isatty())
    }


def chosen(words: str, names: Iterable[str]) -> list[str]:
    beginnings = tuple(word.strip().lower() for word in words.split(","))
    return [name for name in names if name.lower().startswith(beginnings)]


if __name__ == "__main__":
    raise SystemExit(main())
