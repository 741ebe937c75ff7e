"""The ``gradparity check`` command, which finds the known fault that a training loop has, if any."""

import json
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import Progress

from gradparity.check.lookup import Answer, Finding, look_up
from gradparity.check.observe import Loop, Observed, observe, observe_with
from gradparity.check.probe import Sighting, sight
from gradparity.check.rank_check import MOST, check_on_ranks
from gradparity.check.report import BLIND, Checked, as_json, show
from gradparity.check.rounding import alike_but_for_rounding
from gradparity.check.uncheckable import stepped
from gradparity.check.user_loop import load
from gradparity.cli.arguments import Parser
from gradparity.errors import UserError
from gradparity.faults import stress
from gradparity.parity.explain import explain
from gradparity.processes.device import without_gpus
from gradparity.processes.sandbox import PATIENCE, apart
from gradparity.trace.diff import compare_traces
from gradparity.trace.events_compared import first_other_draw
from gradparity.trace.file import Writer, read
from gradparity.trace.record import about

OF_TORCH = ("RuntimeError", "AssertionError", "CheckpointError")
"""Types of the exceptions with which torch stops a loop that has a fault."""

A_DAY = 86400
HELP_OF_PATIENCE = "how long the loop may take each time it is run, and a rank wait for others (default: %(default)g)"

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

It runs in a process of its own, which it may hang, crash or exit.

Exit codes: 0 the same updates, rounding aside; 1 a fault, graphs that are kept, or a process left in a state in which
the reference differs; 2 a loop that cannot be checked."""


def main(arguments: Sequence[str]) -> int:
    """Look up a loop and return the exit code: 0 if it passes, 1 if not, 2 if it cannot be checked."""
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
    parser.add_argument("--patience", type=float, default=PATIENCE, metavar="SECONDS", help=HELP_OF_PATIENCE)
    given = parser.parse_args(arguments)
    if not 1 <= given.nproc <= MOST:
        raise UserError(f"--nproc is {given.nproc}; allowed is 1 to {MOST}")
    if not 0 < given.patience <= A_DAY:
        raise UserError(f"--patience is {given.patience:g}; it takes seconds, more than 0 and at most {A_DAY}")
    without_gpus()  # before torch has looked for any: the loop runs in a fork of this process
    if given.nproc > 1:
        checked = check_on_ranks(given.loop, given.precision, given.nproc, given.patience)
    else:
        checked = check(partial(load, given.loop), given.loop, given.precision, given.patience)
    if given.format == "json":
        print(json.dumps(as_json(checked)))
    else:
        show(checked, Console(highlight=False))
    return checked.code


def check(load: Callable[[], Loop], name: str, precision: str, patience: float = PATIENCE) -> Checked:
    """Run a loop under the stress scenario, in a separate process, and look it up among the known faults.

    Args:
        load: returns the loop; called in that process.
        name: the name of the loop in the report.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        patience: seconds that each run of the loop may take.

    Raises:
        UserError: if no verdict can be given.
    """
    with TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "reference"), Path(folder, "loop")
        # The loop runs first, in a fork. This process must not have computed gradients yet; the reference does.
        sighting = apart(partial(sight, load, name, precision, theirs), patience)
        reference = observe_with([], precision)
        if observe_with([], precision) != reference:
            raise UserError("the reference does not repeat itself on this machine, so nothing can be said of a loop")
        finding = _found(sighting, reference, precision)
        idle = finding.answer == Answer.IDENTICAL or not stepped(sighting.seen)
        explanation = "" if idle else _explained(ours, theirs, precision)
    draws = first_other_draw(reference.trace, sighting.seen.trace)
    if draws is not None and finding.answer in (Answer.CLOSEST, Answer.UNKNOWN) and not sighting.plight:
        explanation += (
            f"\nFrom step {draws} on it draws other random numbers, as a DataLoader or a seed makes it do; these alone "
            "give other dropout masks. Draw none in the loop, to see what else differs."
        )
    return Checked(
        name,
        precision,
        sighting.seen,
        finding,
        explanation,
        sighting.graphs,
        sighting.oracle,
        plight=sighting.plight,
        left=sighting.left,
        spoilt=sighting.after != reference,
        hooks=sighting.hooks,
    )


def _found(sighting: Sighting, reference: Observed, precision: str) -> Finding:
    """Return the faults with which the reference behaves as the loop does."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking it up")
        finding = look_up(
            sighting.seen,
            reference,
            lambda faults, expected: observe_with(faults, precision, expected),
            lambda done, of: progress.update(task, completed=done, total=of),
            alone=bool(sighting.instead or (sighting.plight and not (sighting.seen.error or "").startswith(OF_TORCH))),
        )
    if finding.answer in (Answer.CLOSEST, Answer.UNKNOWN) and sighting.plain and not sighting.plight:
        alike = alike_but_for_rounding(sighting.seen, sighting.plain, precision)
        if alike is not None:
            return replace(finding, answer=Answer.ROUNDING, faults=alike, parted=None, also_here=())
    return finding


def _explained(ours: Path, theirs: Path, precision: str) -> str:
    """Explain the first divergence from the reference, with the tensors of both traces.

    The trace of the loop is in ``theirs``. The reference is run here, and its trace goes to ``ours``.
    """
    writer = Writer(ours, about(), full=True)
    try:
        observe(stress.reference, stress.build, precision, writer=writer)
    finally:
        writer.close()
    compared = compare_traces(read(ours), read(theirs))
    return next((explain(found) for found in compared if found.mismatches), "")
