"""Does DDP need .backward(), or can autograd.grad train on several ranks too?

You will see ranks train by DDP, by hand and by wrong loops; where each first differs from DDP; and FSDP2's shards.
By hand it equals DDP, bit for bit, with one exchange added; without it nothing raises, and each rank trains alone.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from gradparity.cli.arguments import check_range
from gradparity.processes.launch import launch
from gradparity.studies import experiment
from gradparity.studies.distributed.result import distributed_result
from gradparity.studies.distributed.sharded_trial import measure_sharded
from gradparity.studies.distributed.trial import Trial, run_trial
from gradparity.studies.experiment import Finished
from gradparity.studies.train_two_ways.config import ClipConfig, Config, PrecisionName, TaskName
from gradparity.tensorboard import new_folder

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
"""Correct loops, and the faults of the step. The last needs equally many microbatches on every rank, or it hangs."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("distributed", __doc__)
    parser.add_argument("--ranks", type=int, default=2, help=f"processes that train together, 2 to {MOST} (default: 2)")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of the drift, 1 to 1000 (default: 30)")
    return experiment.run("distributed", partial(parser.parse_args, arguments), on_ranks)


def on_ranks(given: Namespace, console: Console) -> Finished:
    check_range("--ranks", given.ranks, 2, MOST)
    check_range("--steps", given.steps, 1, 1000)
    folder = new_folder(given.output / "distributed")
    config = Config(task="digits_cnn", steps=given.steps, microbatch_size=8)
    trials = {**TRIALS, "drift": Trial(config=config, candidate="ddp", fault="unsynchronised-gradients")}
    with experiment.progress(given.quiet) as progress:
        found = {
            name: (trial, launch(run_trial, given.ranks, trial, seconds=300))
            for name, trial in progress.track(trials.items(), description="trainings")
        }
    _, (drift, *_) = found.pop("drift")
    sharded, *_ = launch(measure_sharded, given.ranks)
    return Finished(distributed_result(found, drift, sharded), folder, "Time Series and Text")


if __name__ == "__main__":
    raise SystemExit(main())
