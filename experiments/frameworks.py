"""Do the frameworks that people train with make the updates of the reference step, bit for bit?

You will see framework × scenario, each framework with the loop that its documentation teaches, watched from outside.
"identical" holds for every phase of every step; any other cell is the first difference, whose cause is told below.
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
from gradparity.frameworks.scenario import SCENARIOS
from gradparity.frameworks.table import as_records, cell, differences, in_places, markdown, measured, table
from gradparity.frameworks.watch import FRAMEWORKS, outcome


@exits("frameworks")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="frameworks, or beginnings of their names: --only lightning,ignite")
    parser.add_argument("--scenario", default="", help="scenarios, or beginnings of their names: --scenario 'K =,bf16'")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for TensorBoard files and JSON")
    given = parser.parse_args(arguments)
    frameworks = chosen(given.only, FRAMEWORKS) or parser.error(f"--only: choose from {'; '.join(FRAMEWORKS)}")
    scenarios = chosen(given.scenario, SCENARIOS) or parser.error(f"--scenario: choose from {'; '.join(SCENARIOS)}")
    folder = board.new_folder(given.output / "frameworks")
    torch.set_num_threads(1)
    console = Console(highlight=False)
    outcomes = {
        scenario: {name: outcome(FRAMEWORKS[name], SCENARIOS[scenario]) for name in frameworks}
        for scenario in track(scenarios, "Training", console=Console(stderr=True), disable=not sys.stderr.isatty())
    }
    console.print(table(outcomes))
    for number, (cause, places) in enumerate(differences(outcomes).items(), start=1):
        console.print(f"\n[bold]{number}. {in_places(places)}[/]", soft_wrap=True)
        console.print(cause, soft_wrap=True, markup=False)
        framework, (scenario, *_) = next(iter(places.items()))
        if cause != (shown := measured(outcomes[scenario][framework])):
            console.print(f"[dim]{framework}, {scenario}: {' '.join(shown.split())}[/]", soft_wrap=True)

    with writing(folder / "frameworks.json"):
        (folder / "frameworks.json").write_text(json.dumps(as_records(outcomes), indent=1))
    with Events(folder) as writer:
        writer.add_text("frameworks/1 table", markdown(outcomes))
    cells = [one for row in outcomes.values() for one in row.values()]
    identical = sum(one.identical for one in cells)
    none = sum(cell(one) in ("refuses", "not installed") for one in cells)
    console.print(
        f"\n[bold]{identical} of {len(cells)} cells are identical to the reference, bit for bit;[/] "
        f"{len(cells) - identical - none} have a first difference, {none} no verdict.",
        soft_wrap=True,
    )
    console.print(f"{board.tensorboard_command(folder)}   # then open: Text, frameworks/1 table", soft_wrap=True)
    return 0


def chosen(words: str, names: Iterable[str]) -> list[str]:
    beginnings = tuple(word.strip().lower() for word in words.split(","))
    return [name for name in names if name.lower().startswith(beginnings)]


if __name__ == "__main__":
    raise SystemExit(main())
