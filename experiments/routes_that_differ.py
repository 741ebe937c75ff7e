"""Which equivalent updates round differently, and can one predict where, and to which bits?

You will see each way compared with the reference: first difference, its size, its growth, and the prediction.
A prediction that holds bit for bit is an explanation: only what it names makes the difference.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

import torch
from rich.console import Console

from gradparity.cli.arguments import check_range
from gradparity.cli.choose_by_name import add_choice, choose
from gradparity.studies import experiment
from gradparity.studies.experiment import Finished
from gradparity.studies.routes_that_differ import VARIANTS, VariantOutcome, variant_outcome
from gradparity.studies.routes_that_differ.result import variants_result
from gradparity.studies.train_two_ways.config import LARGEST_COUNT
from gradparity.tensorboard import new_folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("routes_that_differ", __doc__)
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each training, default 200")
    add_choice(parser, "--only", "; ".join(variant.name for variant in VARIANTS))
    return experiment.run("routes_that_differ", partial(parser.parse_args, arguments), routes)


def routes(given: Namespace, console: Console) -> Finished:
    names = choose("--only", given.only, [variant.name for variant in VARIANTS])
    variants = [variant for variant in VARIANTS if variant.name in names]
    check_range("--steps", given.steps, 1, LARGEST_COUNT)
    folder = new_folder(given.output / "routes")
    torch.set_num_threads(1)
    outcomes = list[VariantOutcome]()
    with experiment.progress(given.quiet) as progress:
        bar = progress.add_task("steps", total=given.steps * len(variants))
        for variant in variants:
            progress.update(bar, description=variant.name)
            outcomes.append(variant_outcome(variant, given.steps, partial(progress.advance, bar)))
    return Finished(variants_result(outcomes), folder, "Time Series and Text")


if __name__ == "__main__":
    raise SystemExit(main())
