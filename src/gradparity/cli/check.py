"""The ``gradparity check`` command, which finds the known fault that a training loop has, if any."""

import json
import math
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from rich.console import Console

from gradparity.check.check_loop import check
from gradparity.check.intended.intended_reference import Said
from gradparity.check.lookup.kept_runs import KeptRuns
from gradparity.check.presentation.report import LIMITS, LIMITS_ON_RANKS, show
from gradparity.check.presentation.report_as_json import as_json
from gradparity.check.rank_check import MOST_RANKS, check_on_ranks
from gradparity.check.running.user_loop import load_loop
from gradparity.cli.arguments import Parser, check_range
from gradparity.errors import UserError
from gradparity.faults.stress_scenario import MICROBATCHES
from gradparity.processes.determinism import hide_gpus
from gradparity.processes.sandbox import PATIENCE

_A_DAY = 86400
_HELP_OF_PRECISION = (
    "of the training; by default that of the loop's own autocast, else fp16 if it takes the scaler, "
    "else bf16 if it reads plan.autocast, else fp32"
)
_MEANT = "what the loop means; by default found out from what it takes and reads"
_HELP_OF_NO_CACHE = (
    "neither read nor write the runs of known faults that are kept between checks, "
    "in $GRADPARITY_CACHE or the user's cache folder"
)
_HELP_OF_PATIENCE = "limit for each run of the loop, and for a rank that waits for others (default: %(default)g)"

EXAMPLE = """\
def train(model, optimizer, batches, loss, scaler, scheduler, plan):
    for epoch in range(plan.epochs):
        for start in range(0, len(batches), plan.accumulation_steps):
            window = batches[start : start + plan.accumulation_steps]
            tokens = sum(plan.count(batch) for batch in window)
            optimizer.zero_grad()
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() >= scale > 1e-38:
                scheduler.step()
"""

_EPILOG = f"""\
The loop is a function that takes the arguments that it needs, by name. Under other names it takes all seven, in this
order:

  model, optimizer
  batches    the microbatches of an epoch, a list; they have .inputs and .targets
  loss       loss(model, batch): the loss summed over the tokens of a microbatch
  scaler, scheduler
  plan       .epochs, .accumulation_steps (the last step of an epoch has fewer), .max_norm, .autocast() (a context),
             .count(batch) (its number of tokens), and if the loop uses them: .held_out (batches to validate on),
             .checkpoint (a file in memory; seek(0) before each save and load) and .restart() (the initial state)

A loop that keeps an average of the weights may take one more, by name:

  ema        a torch.optim.swa_utils.AveragedModel with a decay of plan.ema_decay; update it once after each step

An average that the loop builds itself is looked for in its variables, and judged in the same way: it has to follow
once a step, with all parameters, and with plan.ema_decay if the loop reads that.

This loop is correct:

{EXAMPLE}
--nproc N runs it in N processes on this machine, as torchrun would start them, with a gloo process group and RANK,
LOCAL_RANK and WORLD_SIZE set. Each rank has a model with its own weights, and its own batches: the same number on each
rank, with different numbers of tokens. The expected loss is the mean over the tokens of all ranks. DDP averages over
ranks, so with DDP divide the loss of a window by

  tokens = torch.tensor(float(sum(plan.count(batch) for batch in window)))
  torch.distributed.all_reduce(tokens)
  tokens /= torch.distributed.get_world_size()

Two ranks sum in one order only. With more, a correct loop may round differently from the reference, and the report
says so.

{LIMITS}

{LIMITS_ON_RANKS}

The loop runs in a separate process, so it may hang, crash or exit.

Exit codes: 0 the same updates, rounding aside; 1 a fault, graphs that are kept, or a process left in a state in which
the reference computes different updates; 2 a loop that cannot be checked."""


def main(arguments: Sequence[str]) -> int:
    """Check a loop, print the report, and return the exit code: 0 if it passes, 1 if not, 2 if it cannot be checked."""
    parser = Parser(
        "gradparity check",
        description="Find the known fault that a training loop has, if any, by running it on a small model.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("loop", metavar="MODULE:FUNCTION", help="looked up in the current folder first")
    parser.add_argument("--precision", choices=("fp16", "bf16", "fp32", "fp64"), help=_HELP_OF_PRECISION)
    parser.add_argument("--accumulation-steps", type=int, metavar="N", help=_MEANT)
    parser.add_argument("--max-norm", type=_norm, metavar="NORM", help=f"{_MEANT}; none for a loop that does not clip")
    parser.add_argument("--scheduler", choices=("given", "none"), help=_MEANT)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text for people, json for programs")
    parser.add_argument(
        "--nproc", type=int, default=1, help=f"number of ranks to run it on, 1 to {MOST_RANKS} (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    parser.add_argument("--no-cache", action="store_true", help=_HELP_OF_NO_CACHE)
    parser.add_argument("--patience", type=float, default=PATIENCE, metavar="SECONDS", help=_HELP_OF_PATIENCE)
    given = parser.parse_args(arguments)
    check_range("--nproc", given.nproc, 1, MOST_RANKS)
    if not 0 < given.patience <= _A_DAY:
        raise UserError(f"--patience is {given.patience:g}; it takes seconds, more than 0 and at most {_A_DAY}")
    if given.accumulation_steps is not None:
        check_range("--accumulation-steps", given.accumulation_steps, 1, MICROBATCHES)
    scheduler = None if given.scheduler is None else given.scheduler == "given"
    said = Said(given.accumulation_steps, given.max_norm, scheduler)
    hide_gpus()  # before torch has looked for any: the loop runs in a fork of this process
    kept = KeptRuns(use=not given.no_cache)
    if given.nproc > 1:
        result = check_on_ranks(given.loop, given.precision or "fp16", given.nproc, given.patience, given.quiet, kept)
    else:
        load = partial(load_loop, given.loop)
        result = check(load, given.loop, given.precision, given.patience, said, given.quiet, kept)
    if given.format == "json":
        print(json.dumps(as_json(result)))
    else:
        show(result, Console(highlight=False))
    return result.code


def _norm(text: str) -> float:
    """Return the threshold of a clip; infinity for ``none``."""
    if text == "none":
        return math.inf
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise ArgumentTypeError(f"{text!r} is no threshold; write a number above 0, or none")
