"""What do gradients by hand, lockstep and recording cost?

You will see times as ratios, measured in turn in one run, with quartiles; memory to the byte; and how both grow.
"1.05" means 5% longer than the same steps unwatched; seconds differ between machines, ratios much less.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from gradparity.cli.arguments import check_range
from gradparity.cli.choose_by_name import add_choice, choose
from gradparity.errors import writing
from gradparity.studies import experiment
from gradparity.studies.benchmark.all_parts import DEFAULT, PARTS
from gradparity.studies.experiment import Finished
from gradparity.studies.result import Result, show_result, write_result
from gradparity.tensorboard import new_folder
from gradparity.tensorboard.mpl_style import bold


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("benchmark", __doc__)
    parser.add_argument(
        "--full", action="store_true", help="all parts and sizes, more rounds: about a quarter of an hour"
    )
    add_choice(parser, "--only", f"{', '.join(PARTS)}; default {', '.join(DEFAULT)}")
    parser.add_argument("--rounds", type=int, help="how often each work is timed, default 5, or 15 with --full")
    return experiment.run("benchmark", partial(parser.parse_args, arguments), benchmark)


def benchmark(given: Namespace, console: Console) -> Finished:
    rounds = given.rounds if given.rounds is not None else 15 if given.full else 5
    possible = [name for name in PARTS if name != "gpu" or torch.cuda.is_available()]
    by_default = possible if given.full else list(DEFAULT)
    names = choose("--only", given.only, PARTS) if given.only is not None else by_default
    check_range("--rounds", rounds, 2, 1000)
    folder = new_folder(given.output / "benchmark")
    torch.set_num_threads(1)
    sentences = []
    for name in names:
        part = measure(name, given.full, rounds, given.quiet)
        save_pictures(part, folder / f"{name}.png")
        write_result(part, folder, run=name)
        show_result(part, console)
        sentences.append(part.sentence)
    return Finished(
        Result(sentence="\n".join(sentences), terminal=[f"Exact figures: {folder}\n"]), folder, "Time Series and Text"
    )


def measure(name: str, full: bool, rounds: int, quiet: bool) -> Result:
    with experiment.progress(quiet) as progress:

        def bar(work: str, ticks: int) -> Callable[[], object]:
            return partial(progress.advance, progress.add_task(work, total=ticks))

        return PARTS[name](full, rounds, bar)


def save_pictures(part: Result, path: Path) -> None:
    for figure in part.figures.values():
        with writing(path):
            figure.savefig(path)
        bold(figure)


if __name__ == "__main__":
    raise SystemExit(main())
