"""``gradparity check``: which known fault a training loop has, if any."""

import json
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import Progress

from gradparity.arguments import Parser
from gradparity.diagnosis.lookup import Answer, first_shown, look_up
from gradparity.diagnosis.observe import Loop, observe, observe_with
from gradparity.diagnosis.on_ranks import MOST, PATIENCE, check_on_ranks
from gradparity.diagnosis.oracle import error_of_first_step
from gradparity.diagnosis.retained import Graphs
from gradparity.diagnosis.rounding import alike_but_for_rounding
from gradparity.diagnosis.told import BLIND, Checked, as_json, show
from gradparity.diagnosis.user_loop import load
from gradparity.errors import UserError
from gradparity.faults import stress
from gradparity.parity.verdict import Verdict
from gradparity.trace.diff import compare_traces, first_other_draw
from gradparity.trace.file import Writer, read
from gradparity.trace.recording import about

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
            if scaler.get_scale() >= scale:
                scheduler.step()
"""

EXPLAINED = f"""\
The loop is a function that takes, by name, what it needs of (or under other names all seven, in this order):

  model, optimizer
  batches    the microbatches of an epoch, a list; they have .inputs and .targets
  loss       loss(model, batch): the loss summed over the tokens of a microbatch
  scaler, scheduler
  plan       .epochs, .accumulation_steps (the last step of an epoch has fewer), .max_norm, .autocast() (a context),
             .count(batch) (its tokens), and if the loop cares for them: .held_out (batches to validate on),
             .checkpoint (a file to save to and load from) and .restart() (everything back to its beginning)

This one is right:

{EXAMPLE}
With --nproc N it is run by N processes on this machine, as torchrun would start them, with a gloo process group and
RANK, LOCAL_RANK and WORLD_SIZE. Each rank has a model with weights of its own, and its own batches: as many on each, of
other numbers of tokens. Write DistributedDataParallel(model), or exchange by hand. Wanted is the mean over all ranks'
tokens. DDP averages over ranks, so for it the loss of a window is divided by

  tokens = torch.tensor(float(sum(plan.count(batch) for batch in window)))
  torch.distributed.all_reduce(tokens)
  tokens /= torch.distributed.get_world_size()

Two ranks have but one sum. With more, a right loop may round otherwise than the reference, and is told so.

{BLIND}

Exit codes: 0 the same updates, rounding aside; 1 a fault, or graphs that are kept; 2 a loop that cannot be checked."""


def main(arguments: Sequence[str]) -> int:
    """Look a loop up; 0 if it makes the updates of the reference, 1 if not."""
    parser = Parser(
        "gradparity check",
        description="Which known fault does a training loop have?",
        epilog=EXPLAINED,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("loop", metavar="MODULE:FUNCTION", help="looked for in the current folder first")
    parser.add_argument("--precision", choices=("fp16", "bf16", "fp32"), default="fp16", help="default: %(default)s")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="for people, or for programs")
    parser.add_argument("--nproc", type=int, default=1, help=f"ranks to run it on, 1 to {MOST} (default: %(default)s)")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds that a rank may keep the others waiting (default: %(default)g)",
    )
    given = parser.parse_args(arguments)
    if not 1 <= given.nproc <= MOST:
        raise UserError(f"--nproc is {given.nproc}; allowed is 1 to {MOST}")
    if not 0 < given.patience < inf:
        raise UserError(f"--patience is {given.patience:g}; it is a number of seconds above 0")
    if given.nproc > 1:
        checked = check_on_ranks(given.loop, given.precision, given.nproc, given.patience)
    else:
        checked = check(load(given.loop), given.loop, given.precision)
    if given.format == "json":
        print(json.dumps(as_json(checked)))
    else:
        show(checked, Console(highlight=False))
    return 0 if checked.passed else 1


def check(loop: Loop, name: str, precision: str) -> Checked:
    """Watch ``loop`` under the stress scenario, and look it up.

    Raises:
        UserError: if no verdict can be given.
    """
    reference = observe_with([], precision)
    if observe_with([], precision) != reference:
        raise UserError("the reference does not repeat itself on this machine, so nothing can be said of a loop")
    seen = observe(loop, stress.build, precision)
    graphs = Graphs()
    again = observe(loop, graphs.build, precision, graphs.after)
    if observe_with([], precision) != reference:
        raise UserError(
            f"{name} leaves something behind in the process (a default dtype, a grad mode, a patched function), after "
            "which the reference differs; have it put back what it changes"
        )
    if seen != again:
        raise UserError(
            f"{name} does not repeat itself: run twice, it differs at {first_shown(seen, again)}; let it keep nothing "
            "between calls, and draw random numbers from torch only"
        )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking it up")
        finding = look_up(
            seen,
            reference,
            lambda faults, expected: observe_with(faults, precision, expected),
            lambda done, of: progress.update(task, completed=done, total=of),
        )
    if finding.answer in (Answer.CLOSEST, Answer.UNKNOWN) and seen.error is None:
        alike = alike_but_for_rounding(loop, precision)
        if alike is not None:
            finding = replace(finding, answer=Answer.ROUNDING, faults=alike, parted=None, also_here=())
    explanation = "" if finding.answer == Answer.IDENTICAL else explained(loop, precision)
    draws = first_other_draw(reference.trace, seen.trace)
    if draws is not None and finding.answer in (Answer.CLOSEST, Answer.UNKNOWN):
        explanation += (
            f"\nFrom step {draws} on it draws other random numbers, as a DataLoader or a seed makes it do; these alone "
            "give other dropout masks. Draw none in the loop, to see what else differs."
        )
    error = error_of_first_step(loop) if seen.error is None else None
    return Checked(name, precision, seen, finding, explanation, graphs, error)


def explained(loop: Loop, precision: str) -> str:
    """The first divergence of ``loop`` from the reference, told from the tensors themselves."""
    with TemporaryDirectory() as folder:
        kept = partial(_kept, precision=precision)
        ours, theirs = kept(stress.reference, folder=Path(folder, "reference")), kept(loop, folder=Path(folder, "loop"))
        verdict = Verdict()
        for found in compare_traces(read(ours), read(theirs)):
            verdict.add(found)
    return verdict.explanation


def _kept(loop: Loop, precision: str, folder: Path) -> Path:
    writer = Writer(folder, about(), full=True)
    try:
        observe(loop, stress.build, precision, writer=writer)
    finally:
        writer.close()
    return folder
