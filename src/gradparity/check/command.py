"""The ``gradparity check`` command, which finds the known fault that a training loop has, if any."""

import json
import math
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from gradparity.check.closest_reference import ClosestReference, closest_reference
from gradparity.check.intended import EVERYTHING, Said, intended
from gradparity.check.lookup import Finding, Match, look_up
from gradparity.check.observe import observe, observe_reference
from gradparity.check.progress import progress_bar
from gradparity.check.rank_check import MOST_RANKS, check_on_ranks
from gradparity.check.report import LIMITS, LIMITS_ON_RANKS, show
from gradparity.check.report_as_json import as_json
from gradparity.check.result import CheckResult
from gradparity.check.rounding import match_with_rounding, overflows_apart
from gradparity.check.run_in_child import Probe, probe_loop
from gradparity.check.uncheckable import steps_made
from gradparity.check.user_loop import LoadedLoop, load_loop
from gradparity.cli.arguments import Parser, check_range
from gradparity.errors import UserError
from gradparity.faults.patching import reference_with
from gradparity.faults.stress import MICROBATCHES
from gradparity.parity.explain import explain
from gradparity.parity.state import Part
from gradparity.processes.determinism import hide_gpus
from gradparity.processes.sandbox import PATIENCE, run_in_subprocess
from gradparity.trace.diff import compare_traces
from gradparity.trace.events_compared import first_other_draw
from gradparity.trace.file import Writer, read
from gradparity.trace.record import about

_TORCH_RAISES = ("RuntimeError", "AssertionError", "CheckpointError")
"""Types of the exceptions with which torch stops a loop that has a fault."""

_A_DAY = 86400
_HELP_OF_PRECISION = (
    "of the training; by default fp16 if the loop takes the scaler, else bf16 if it reads plan.autocast, else fp32"
)
_MEANT = "what the loop means; by default found out from what it takes and reads"
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
             .checkpoint (a file to save to and load from) and .restart() (restores the initial state)

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
    parser.add_argument("--precision", choices=("fp16", "bf16", "fp32"), help=_HELP_OF_PRECISION)
    parser.add_argument("--accumulation-steps", type=int, metavar="N", help=_MEANT)
    parser.add_argument("--max-norm", type=_norm, metavar="NORM", help=f"{_MEANT}; none for a loop that does not clip")
    parser.add_argument("--scheduler", choices=("given", "none"), help=_MEANT)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text for people, json for programs")
    parser.add_argument(
        "--nproc", type=int, default=1, help=f"number of ranks to run it on, 1 to {MOST_RANKS} (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress")
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
    if given.nproc > 1:
        result = check_on_ranks(given.loop, given.precision or "fp16", given.nproc, given.patience)
    else:
        result = check(partial(load_loop, given.loop), given.loop, given.precision, given.patience, said, given.quiet)
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


def check(
    load: Callable[[], LoadedLoop],
    name: str,
    precision: str | None = None,
    patience: float = PATIENCE,
    said: Said = Said(),  # noqa: B008  # it is frozen
    quiet: bool = False,
) -> CheckResult:
    """Run a loop under the stress scenario, in a separate process, and look it up among the known faults.

    Args:
        load: returns the loop; called in that process.
        name: the name of the loop in the report.
        precision: a key of :data:`gradparity.training.PRECISIONS`; ``None`` for the one that the loop is made for.
        patience: seconds that each run of the loop may take.
        said: what its user says that it means.
        quiet: show no progress.

    Raises:
        UserError: if no verdict can be given.
    """
    with TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "reference"), Path(folder, "loop")
        # The loop runs first, in a fork. This process must not have computed gradients yet; the reference does.
        probe = run_in_subprocess(partial(probe_loop, load, name, precision, theirs), patience)
        precision = probe.precision
        reference = observe_reference([], precision)
        if observe_reference([], precision) != reference:
            raise UserError("the reference does not repeat itself on this machine, so no loop can be checked here")
        unasked = probe.asked.unasked
        ended = probe.observed.end.finished  # else it had no chance to read what comes later
        options = intended(probe.asked if ended else EVERYTHING, probe.observed, probe.audit, said)
        closest = closest_reference(probe.observed, reference, options, precision, unasked)
        finding = _look_up(probe, closest, unasked, quiet)
        idle = finding.match == Match.IDENTICAL or not steps_made(probe.observed)
        explanation = "" if idle else _explain(ours, theirs, precision, closest)
    draws = first_other_draw(closest.run.trace, probe.observed.trace)
    if draws is not None and not finding.matched and not probe.uncheckable:
        explanation += (
            f"\nFrom step {draws} on it draws different random numbers, as with a DataLoader or a seed; this alone "
            "gives different dropout masks. Draw none in the loop, to see if anything else differs."
        )
    return CheckResult(probe, finding, explanation, probe.reference_after != reference, meant=closest.meant)


def _look_up(probe: Probe, closest: ClosestReference, unasked: frozenset[Part], quiet: bool) -> Finding:
    """Return the faults with which the reference behaves as the loop does."""
    loop, precision = probe.observed, probe.precision
    stopped_by_torch = loop.end.exception in _TORCH_RAISES
    with progress_bar(shown=not quiet) as progress:
        finding = look_up(
            loop,
            closest.run,
            lambda faults, expected: observe_reference([*closest.changes, *faults], precision, expected),
            progress,
            alone=bool(probe.instead or (probe.uncheckable and not stopped_by_torch)),
            unasked=unasked,
        )
    if not finding.matched and probe.in_fp32 and not probe.uncheckable:
        faults = match_with_rounding(loop, probe.in_fp32, precision, closest.changes, unasked)
        if faults is not None:
            return finding.except_for_rounding(faults)
        overflow = overflows_apart(loop, closest.run, probe.in_fp32, precision, closest.changes, unasked)
        if overflow is not None:
            return replace(finding.except_for_rounding(()), overflow=overflow)
    return finding


def _explain(ours: Path, theirs: Path, precision: str, closest: ClosestReference) -> str:
    """Explain the first divergence from the reference, with the tensors of both traces.

    The trace of the loop is in ``theirs``. The reference is run here, and its trace goes to ``ours``.
    """
    names, writer = reference_with(closest.changes), Writer(ours, about(), full=True)
    try:
        observe(names["reference"], names["build"], precision, writer=writer)
    finally:
        writer.close()
    compared = compare_traces(read(ours), read(theirs))
    return next((explain(found) for found in compared if found.mismatches), "")
