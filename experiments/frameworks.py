"""Do the frameworks that people train with make the updates of the reference step, bit for bit?

You will see framework × scenario, each with the loop of its documentation, watched on one rank and again on two.
"identical" holds for every phase of every step on every rank; any other cell is a first difference, explained below.
"""

import json
from argparse import Namespace
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from rich.console import Console

from gradparity.errors import UserError, writing
from gradparity.studies import experiment
from gradparity.studies.experiment import Answer, say
from gradparity.studies.frameworks.on_ranks import ON_RANKS, outcomes_on_ranks
from gradparity.studies.frameworks.scenario import RANK_SCENARIOS, SCENARIOS
from gradparity.studies.frameworks.table import (
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
from gradparity.studies.frameworks.watch import FRAMEWORKS, Outcome, outcome
from gradparity.tensorboard import new_folder, write_pages


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("frameworks", __doc__)
    parser.add_argument("--only", default="", help="frameworks, or beginnings of their names: --only lightning,ignite")
    parser.add_argument("--scenario", default="", help="scenarios, or beginnings of their names: --scenario 'K =,bf16'")
    return experiment.run("frameworks", partial(parser.parse_args, arguments), frameworks)


def frameworks(given: Namespace, console: Console) -> Answer:
    names, scenarios = chosen(given.only, FRAMEWORKS), chosen(given.scenario, SCENARIOS)
    on_ranks = chosen(given.only, ON_RANKS), chosen(given.scenario, RANK_SCENARIOS)
    if not names and not on_ranks[0]:
        raise UserError(f"--only is {given.only!r}; choose from {'; '.join({**FRAMEWORKS, **ON_RANKS})}")
    if not (names and scenarios) and not all(on_ranks):
        known = [*(SCENARIOS if names else ()), *(RANK_SCENARIOS if on_ranks[0] else ())]
        raise UserError(f"--scenario is {given.scenario!r}; choose from {'; '.join(known)}")
    folder = new_folder(given.output / "frameworks")
    torch.set_num_threads(1)
    tables: dict[str, dict[str, dict[str, Outcome]]] = {}
    with experiment.progress(given.quiet) as progress:
        if names and scenarios:
            tables["one rank"] = {
                scenario: {name: outcome(FRAMEWORKS[name], SCENARIOS[scenario]) for name in names}
                for scenario in progress.track(scenarios, description="scenarios")
            }
    if all(on_ranks):
        tables["two ranks"] = outcomes_on_ranks(*on_ranks)
    outcomes = {scenario: row for rows in tables.values() for scenario, row in rows.items()}
    told = differences(outcomes)
    console.print(LEGEND)
    for where, rows in tables.items():
        console.print(table(rows, told, title=f"On {where}"))
    for number, (cause, places) in enumerate(told.items(), start=1):
        say(console, f"\n{number}. {in_places(places)}", style="bold")
        say(console, cause)
        framework, (scenario, *_) = next(iter(places.items()))
        if cause != (shown := measured(outcomes[scenario][framework])):
            say(console, f"{framework}, {scenario}: {' '.join(shown.split())}", style="dim")
    console.print()
    with writing(folder / "frameworks.json"):
        (folder / "frameworks.json").write_text(json.dumps(as_records(outcomes), indent=1))
    sentence = answer(outcomes)
    pages = {f"{number} on {where}": page(rows) for number, (where, rows) in enumerate(tables.items(), start=2)}
    write_pages(folder, {"1 answer": f"**{sentence}**", **pages, "4 causes": causes(outcomes)})
    return Answer(sentence=sentence, holds=not unexplained(outcomes), folder=folder)


def chosen(words: str, names: Iterable[str]) -> list[str]:
    beginnings = tuple(word.strip().lower() for word in words.split(","))
    return [name for name in names if name.lower().startswith(beginnings)]


if __name__ == "__main__":
    raise SystemExit(main())
