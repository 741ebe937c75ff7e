"""Which other ways to the same update give other bits, and can one say beforehand where, and which?

You will see each way held against the reference: the first difference, its size, how it grows, and what was predicted.
A prediction that holds bit for bit is an explanation: nothing but what it names makes the difference.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

import torch
from rich.console import Console

from gradparity.cli.arguments import check_range
from gradparity.errors import UserError
from gradparity.studies import experiment
from gradparity.studies.experiment import Answer
from gradparity.studies.two_ways.config import MOST
from gradparity.studies.variants import VARIANTS, Outcome, Variant, outcome, record, tables
from gradparity.tensorboard import new_folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("routes_that_differ", __doc__)
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each training, default 200")
    parser.add_argument("--only", metavar="NAME", action="append", help="a variant, more than once for several")
    return experiment.run("routes_that_differ", partial(parser.parse_args, arguments), routes)


def routes(given: Namespace, console: Console) -> Answer:
    variants = chosen(given.only)
    check_range("--steps", given.steps, 1, MOST)
    folder = new_folder(given.output / "routes")
    torch.set_num_threads(1)
    outcomes = list[Outcome]()
    with experiment.progress(given.quiet) as progress:
        bar = progress.add_task("steps", total=given.steps * len(variants))
        for variant in variants:
            progress.update(bar, description=variant.name)
            outcomes.append(outcome(variant, given.steps, partial(progress.advance, bar)))
    record.write(folder, outcomes)
    for table in (tables.firsts, tables.growths, tables.predictions):
        console.print(table(outcomes))
    for variant in variants:
        console.print(f"[bold]{variant.name}[/]: {variant.why}", soft_wrap=not console.is_terminal)
    console.print()
    return Answer(
        sentence=tables.answer(outcomes),
        holds=all(kept.holds for found in outcomes for kept in found.kept),
        folder=folder,
        pages="Time Series and Text",
    )


def chosen(names: Sequence[str] | None) -> list[Variant]:
    known = {variant.name: variant for variant in VARIANTS}
    for name in names or ():
        if name not in known:
            raise UserError(f"--only {name!r} is no variant; the variants are: {'; '.join(known)}")
    return [variant for variant in VARIANTS if not names or variant.name in names]


if __name__ == "__main__":
    raise SystemExit(main())
