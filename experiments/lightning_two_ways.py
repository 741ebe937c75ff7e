"""Does Lightning's Trainer make the updates of the reference step, whichever way fills p.grad?

You will see the Trainer in lockstep with the reference step: as it is, by the manual route, and optimizing by hand.
"Identical" means bit for bit at every phase; any other cell names the first phase at which the Trainer differs.
"""

from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from gradparity import training
from gradparity.parity.lockstep import lockstep
from gradparity.parity.verdict import Verdict, verdict_of
from gradparity.studies import experiment, tasks
from gradparity.studies.experiment import Finished
from gradparity.studies.lightning_two_ways.trainer_lane import WAYS, Way, under_lightning
from gradparity.studies.result import ANSWER_PAGE, Result
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import ClipConfig, Config, ScalerConfig
from gradparity.tensorboard import new_folder
from gradparity.tensorboard.pages import table_page

FP32 = Config(task="digits_cnn", microbatch_size=16, steps=8, accumulation_steps=3, clip=ClipConfig(threshold=0.05))
FP16 = replace(FP32, precision="fp16", scaler=ScalerConfig(init_scale=1024.0))
TOO_LARGE = ScalerConfig(init_scale=2.0**30, backoff_factor=2.0**-20)

SCENARIOS = [
    # name, loop that the Trainer is compared with, number of microbatches, configuration of both
    ("fp64, K = 1", "backward", 8, replace(FP32, precision="fp64", accumulation_steps=1)),
    ("fp32, K = 3", "backward", 12, FP32),
    ("fp32, K = 3, a partial last window", "backward", 11, FP32),
    ("bf16, K = 3", "backward", 12, replace(FP32, precision="bf16")),
    ("fp16, K = 3", "backward", 12, FP16),
    ("fp16, K = 3, an overflow", "backward", 12, replace(FP16, scaler=TOO_LARGE)),
    ("fp16, K = 3, compared with clip-before-unscale", "clip-before-unscale", 12, FP16),
]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("lightning_two_ways", __doc__)
    return experiment.run("lightning_two_ways", partial(parser.parse_args, arguments), under_the_trainer)


def under_the_trainer(given: Namespace, console: Console) -> Finished:
    folder = new_folder(given.output / "lightning_two_ways")
    torch.set_num_threads(1)
    table = Table(*(Column(name, overflow="fold") for name in ("scenario", *WAYS)))
    found: dict[str, list[str]] = defaultdict(list)
    route_matters = False
    with experiment.progress(given.quiet) as progress:
        for scenario, loop, microbatches, config in progress.track(SCENARIOS, description="scenarios"):
            verdicts = {way: compare(config, loop, microbatches, way) for way in WAYS}
            table.add_row(scenario, *(cell(verdict) for verdict in verdicts.values()))
            explanations = [verdict.explanation for verdict in verdicts.values()]
            route_matters |= explanations[0] != explanations[1] or explanations[2] != explanations[3]
            for explanation in dict.fromkeys(filter(None, explanations)):
                ways = " and ".join(w for w, v in verdicts.items() if v.explanation == explanation and "," not in w)
                found[explanation].append(f"{scenario} ({ways})")
    paragraphs: list[Text | str] = []
    for number, (explanation, places) in enumerate(found.items(), start=1):
        paragraphs += [Text(f"\nDifference {number} in {'; '.join(places)}", style="bold"), explanation]
    result = Result(
        sentence=f"It makes {'a' if route_matters else 'no'} difference to Lightning which way fills p.grad.",
        holds=not route_matters,
        terminal=[table, *paragraphs, ""],
        pages={
            ANSWER_PAGE: table_page(table),
            "2 differences": "\n".join(f"* **{'; '.join(places)}.** {why}" for why, places in found.items()),
        },
    )
    return Finished(result, folder)


def compare(config: Config, loop: str, microbatches: int, way: Way) -> Verdict:
    task = tasks.TASKS["digits_cnn"]()
    examples = tasks.move_examples(task.train, config.device, training.PRECISIONS[config.precision].parameters)
    batches = list(
        islice(tasks.shuffled(examples, config.microbatch_size, torch.Generator().manual_seed(0)), microbatches)
    )
    candidate = under_lightning(build.lane(config, task, "backward"), config, way, batches)
    windows = training.windows(batches, config.accumulation_steps, tasks.count)
    return verdict_of(lockstep(build.lane(config, task, loop), candidate, windows))


def cell(verdict: Verdict) -> str:
    if verdict.first is None:
        return "[green]identical[/]"
    found, mismatch = verdict.first
    return f"[red]step {found.place.step}, {found.place.phase.name.lower()}[/]: {mismatch.part}"


if __name__ == "__main__":
    raise SystemExit(main())
