"""Which other ways to the same update give other bits, and can one say beforehand where, and which?

You will see each way held against the reference: the first difference, its size, how it grows, and what was predicted.
A prediction that holds bit for bit is an explanation: nothing but what it names makes the difference.
"""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from gradparity.arguments import Parser, exits
from gradparity.board import new_folder, tensorboard_command
from gradparity.config import MOST
from gradparity.errors import UserError
from gradparity.variants import VARIANTS, Outcome, Variant, outcome, record, tables


@exits("routes_that_differ")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each training, default 200")
    parser.add_argument("--only", metavar="NAME", action="append", help="a variant, more than once for several")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for TensorBoard files and figures")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no whys")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(highlight=False)
    variants = chosen(given.only)
    if not 1 <= given.steps <= MOST:
        raise UserError(f"--steps is {given.steps}; allowed is 1 to {MOST}")
    folder = new_folder(given.output / "routes")
    outcomes = measured(variants, given.steps, console, given.quiet)
    record.write(folder, outcomes)
    for table in (tables.firsts, tables.growths, tables.predictions):
        console.print(table(outcomes))
    for variant in () if given.quiet else variants:
        console.print(f"[bold]{variant.name}[/]: {variant.why}")
    console.print(f"\n[bold]{tables.answer(outcomes)}[/]")
    console.print(f"See it: [bold]{tensorboard_command(folder)}[/]", soft_wrap=True)
    return 0 if all(kept.holds for found in outcomes for kept in found.kept) else 1


def chosen(names: Sequence[str] | None) -> list[Variant]:
    known = {variant.name: variant for variant in VARIANTS}
    for name in names or ():
        if name not in known:
            raise UserError(f"--only {name!r} is no variant; the variants are: {'; '.join(known)}")
    return [variant for variant in VARIANTS if not names or variant.name in names]


def measured(variants: Sequence[Variant], steps: int, console: Console, quiet: bool) -> list[Outcome]:
    outcomes = []
    with Progress(console=console, transient=True, disable=quiet) as progress:
        for variant in variants:
            bar = progress.add_task(variant.name, total=steps)
            outcomes.append(outcome(variant, steps, partial(progress.advance, bar)))
    return outcomes


if __name__ == "__main__":
    raise SystemExit(main())
