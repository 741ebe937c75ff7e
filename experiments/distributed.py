"""Does DDP need .backward(), or can autograd.grad train on several ranks too?

You will see ranks started here train by DDP, by hand and by wrong loops; where each parts from DDP; and FSDP2's shards.
By hand it is DDP, bit for bit, if one exchange is added; without it nothing raises, and each rank trains its own model.
"""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gradparity.arguments import Parser, exits
from gradparity.board import new_folder, tensorboard_command
from gradparity.board.events import Events
from gradparity.config import ClipConfig, Config, PrecisionName, TaskName
from gradparity.distributed import tables
from gradparity.distributed.launch import launch
from gradparity.distributed.parity import Outcome
from gradparity.distributed.sharded_trial import measure_sharded
from gradparity.distributed.trial import Trial, run_trials
from gradparity.errors import UserError

MOST = 8
"""Ranks that one machine may be asked for."""


def trial(task: TaskName, precision: PrecisionName, candidate: str, examples: int | None = 90, **more: Any) -> Trial:
    config = Config(
        task=task, precision=precision, steps=3, accumulation_steps=3, microbatch_size=4,
        clip=ClipConfig(by="norm", threshold=0.1),
    )  # fmt: skip
    return Trial(config=config, candidate=candidate, examples=examples, **more)


TRIALS = {
    "ddp": trial("transformer", "fp16", "ddp"),
    "manual": trial("transformer", "fp16", "manual"),
    "manual, BatchNorm": trial("digits_cnn", "bf16", "manual"),
    "manual, in rank order": trial("digits_cnn", "fp32", "manual", averaging="in_rank_order"),
    "manual, an overflow": trial("digits_mlp", "fp16", "manual", overflow=(1, 1)),
    "unsynchronised-gradients": trial("digits_cnn", "fp32", "ddp", fault="unsynchronised-gradients"),
    "averaged-twice": trial("digits_cnn", "fp32", "ddp", fault="averaged-twice"),
    "mean-of-rank-means": trial("transformer", "fp32", "ddp", fault="mean-of-rank-means"),
    "local-clip": trial("digits_cnn", "fp32", "manual", fault="local-clip"),
    "scale-of-each-rank": trial("digits_mlp", "fp16", "manual", fault="scale-of-each-rank", overflow=(1, 1)),
    "own-buffers": trial("digits_cnn", "fp32", "manual", fault="own-buffers"),
    "exchanges-every-microbatch": trial("digits_cnn", "fp32", "ddp", None, fault="exchanges-every-microbatch"),
}
"""Right loops, and of the faults those of the step. The last has as many microbatches on every rank, or it hangs."""


@exits("distributed")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2, help=f"processes that train together, 2 to {MOST} (default: 2)")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of the drift, 1 to 1000 (default: 30)")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for TensorBoard (default: runs)")
    given = parser.parse_args(arguments)
    console = Console(highlight=False)
    for name, value, most, least in (("ranks", given.ranks, MOST, 2), ("steps", given.steps, 1000, 1)):
        if not least <= value <= most:
            raise UserError(f"--{name} is {value}; allowed is {least} to {most}")
    folder = new_folder(given.output / "distributed")
    config = Config(task="digits_cnn", steps=given.steps, microbatch_size=8)
    drifting = Trial(config=config, candidate="ddp", fault="unsynchronised-gradients")
    of_ranks = launch(run_trials, given.ranks, [*TRIALS.values(), drifting], seconds=300)
    sharded = launch(measure_sharded, given.ranks)
    *outcomes, drift = zip(*of_ranks, strict=True)
    found = {name: (TRIALS[name], ranks) for name, ranks in zip(TRIALS, outcomes, strict=True)}
    for table in (tables.routes(found), tables.drift(drift[0]), tables.sharded(sharded[0])):
        console.print(table)
    if given.ranks > 2:
        console.print(
            "A sum of three or more has an order, and DDP's is the backend's: only 'in rank order' has its bits."
        )
    to_board(folder, drift[0])
    by_hand = [ranks for trial, ranks in found.values() if trial.candidate == "manual" and trial.fault is None]
    alike = [all(outcome.parity for outcome in ranks) for ranks in by_hand]
    apart = drift[0].across[-1].parameters.relative_norm
    console.print(
        f"[bold]By hand, {sum(alike)} of {len(alike)} trainings are DDP's on all {given.ranks} ranks, bit for bit; "
        f"with autograd.grad through DDP, ranks are {apart:.0%} apart after {given.steps} steps, and nothing raises.[/]"
    )
    console.print(f"See it: [bold]{tensorboard_command(folder)}[/]", soft_wrap=True)
    return 0 if all(alike) else 1


def to_board(folder: Path, outcome: Outcome) -> None:
    """How far the ranks have drifted apart."""
    with Events(folder) as board:
        for step, at in enumerate(outcome.across):
            board.add_scalar("ranks apart/gradients", at.gradients.relative_norm, step)
            board.add_scalar("ranks apart/parameters", at.parameters.relative_norm, step)


if __name__ == "__main__":
    raise SystemExit(main())
