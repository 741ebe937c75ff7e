"""What does it cost to wire gradients by hand, to train in lockstep, and to record a training?

You will see times as ratios of works done in turn in one run, with quartiles, memory to the byte, and how both grow.
"1.05" means 5% longer than the same steps unwatched; seconds differ between machines, ratios much less.
"""

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from gradparity.cli.arguments import check_range
from gradparity.errors import UserError, writing
from gradparity.studies import experiment
from gradparity.studies.benchmark.parts import DEFAULT, PARTS, Found
from gradparity.studies.experiment import Answer, say
from gradparity.tensorboard import new_folder
from gradparity.tensorboard.events import Events
from gradparity.tensorboard.mpl_style import bold


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("benchmark", __doc__)
    parser.add_argument(
        "--full", action="store_true", help="all parts and sizes, more rounds: about a quarter of an hour"
    )
    parts = f"{', '.join(PARTS)}; default {', '.join(DEFAULT)}"
    parser.add_argument("--only", metavar="PART", action="append", help=f"more than once for several: {parts}")
    parser.add_argument("--rounds", type=int, help="how often each work is timed, default 5, or 15 with --full")
    return experiment.run("benchmark", partial(parser.parse_args, arguments), benchmark)


def benchmark(given: Namespace, console: Console) -> Answer:
    rounds = given.rounds if given.rounds is not None else 15 if given.full else 5
    names = chosen(given.only, given.full)
    check_range("--rounds", rounds, 2, 1000)
    folder = new_folder(given.output / "benchmark")
    torch.set_num_threads(1)
    answers = [measure(name, given.full, rounds, folder, console, given.quiet) for name in names]
    say(console, f"Exact figures: {folder}\n")
    return Answer(sentence="\n".join(answers), folder=folder, pages="Time Series and Text")


def chosen(names: Sequence[str] | None, full: bool) -> list[str]:
    for name in names or ():
        if name not in PARTS:
            raise UserError(f"--only {name} is no part; the parts are {', '.join(PARTS)}")
    return [name for name in PARTS if (name in names if names else full or name in DEFAULT)]


def measure(name: str, full: bool, rounds: int, folder: Path, console: Console, quiet: bool) -> str:
    with experiment.progress(quiet) as progress:

        def bar(what: str, ticks: int) -> Callable[[], object]:
            return partial(progress.advance, progress.add_task(what, total=ticks))

        found = PARTS[name](full, rounds, bar)
    keep(name, found, folder)
    for table in found.tables:
        console.print(table)
    say(console, f"{found.why}\n")
    return found.answer


def keep(name: str, found: Found, folder: Path) -> None:
    with writing(folder / f"{name}.jsonl"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(asdict(one)) + "\n" for one in found.figures))
    with Events(folder / name) as board:
        board.add_text("1 answer", f"{found.answer}\n\n{found.why}")
        if found.figure is not None:
            with writing(folder / f"{name}.png"):
                found.figure.savefig(folder / f"{name}.png")
            board.add_figure(f"1 glance/{name}", bold(found.figure), close=False)


if __name__ == "__main__":
    raise SystemExit(main())
