"""Do the frameworks that people train with make the updates of the reference step, bit for bit?

You will see framework × scenario, each framework with the loop that its documentation teaches, watched from outside.
"identical" holds for every phase of every step; any other cell is the first difference, whose cause is told below.
"""

import json
from argparse import Namespace
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from rich.console import Console

from gradparity import experiment
from gradparity.board import new_folder, write_pages
from gradparity.errors import UserError
from gradparity.experiment import Answer, say
from gradparity.frameworks.scenario import SCENARIOS
from gradparity.frameworks.table import (
    LEGEND,
    answer,
    as_records,
    causes,
    differences,
    in_places,
    measured,
    page,
    table,
    unexplained,
)
from gradparity.frameworks.watch import FRAMEWORKS, outcome


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("frameworks", __doc__)
    parser.add_argument("--only", default="", help="frameworks, or beginnings of their names: --only lightning,ignite")
    parser.add_argument("--scenario", default="", help="scenarios, or beginnings of their names: --scenario 'K =,bf16'")
    return experiment.run("frameworks", partial(parser.parse_args, arguments), frameworks)


def frameworks(given: Namespace, console: Console) -> Answer:
    names, scenarios = chosen("--only", given.only, FRAMEWORKS), chosen("--scenario", given.scenario, SCENARIOS)
    folder = new_folder(given.output / "frameworks")
    torch.set_num_threads(1)
    with experiment.progress(given.quiet) as progress:
        outcomes = {
            scenario: {name: outcome(FRAMEWORKS[name], SCENARIOS[scenario]) for name in names}
            for scenario in progress.track(scenarios, description="scenarios")
        }
    console.print(LEGEND)
    console.print(table(outcomes))
    for number, (cause, places) in enumerate(differences(outcomes).items(), start=1):
        say(console, f"\n{number}. {in_places(places)}", style="bold")
        say(console, cause)
        framework, (scenario, *_) = next(iter(places.items()))
        if cause != (shown := measured(outcomes[scenario][framework])):
            say(console, f"{framework}, {scenario}: {' '.join(shown.split())}", style="dim")
    console.print()
    (folder / "frameworks.json").write_text(json.dumps(as_records(outcomes), indent=1))
    told = answer(outcomes)
    write_pages(folder, {"1 answer": f"**{told}**\n\n{page(outcomes)}", "2 causes": causes(outcomes)})
    return Answer(sentence=told, holds=not unexplained(outcomes), folder=folder)


def chosen(option: str, words: str, names: Iterable[str]) -> list[str]:
    beginnings = tuple(word.strip().lower() for word in words.split(","))
    found = [name for name in names if name.lower().startswith(beginnings)]
    if not found:
        raise UserError(f"{option} is {words!r}; choose from {'; '.join(names)}")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
