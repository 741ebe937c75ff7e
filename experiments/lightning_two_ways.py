"""Does Lightning's Trainer care which way fills p.grad, and does it make the updates of the reference step?

You will see the Trainer in lockstep with the reference step: as it comes, by the manual route, and optimizing by hand.
"Identical" is bit for bit at every phase; any other cell names the first place where the Trainer does something else.
"""

from argparse import RawDescriptionHelpFormatter
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import torch
from rich.console import Console
from rich.table import Table

from gradparity import build, tasks, training
from gradparity.adapters.lightning import WAYS, Way, under_lightning
from gradparity.arguments import Parser, exits
from gradparity.config import ClipConfig, Config, ScalerConfig
from gradparity.parity.lockstep import lockstep
from gradparity.parity.verdict import Verdict

FP32 = Config(task="digits_cnn", microbatch_size=16, steps=8, accumulation_steps=3, clip=ClipConfig(threshold=0.05))
FP16 = replace(FP32, precision="fp16", scaler=ScalerConfig(init_scale=1024.0))
TOO_LARGE = ScalerConfig(init_scale=2.0**30, backoff_factor=2.0**-20)

SCENARIOS = [
    # what, which loop the Trainer is held against, how many microbatches, and the configuration of both
    ("fp64, K = 1", "backward", 8, replace(FP32, precision="fp64", accumulation_steps=1)),
    ("fp32, K = 3", "backward", 12, FP32),
    ("fp32, K = 3, a partial last window", "backward", 11, FP32),
    ("bf16, K = 3", "backward", 12, replace(FP32, precision="bf16")),
    ("fp16, K = 3", "backward", 12, FP16),
    ("fp16, K = 3, an overflow", "backward", 12, replace(FP16, scaler=TOO_LARGE)),
    ("fp16, K = 3, against clip-before-unscale", "clip-before-unscale", 12, FP16),
]


@exits("lightning_two_ways")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(highlight=False)
    table = Table("scenario", *WAYS, title="Lightning's Trainer against the reference step", title_justify="left")
    told: dict[str, list[str]] = defaultdict(list)
    route_matters = False
    for scenario, loop, microbatches, config in SCENARIOS:
        verdicts = {way: compare(config, loop, microbatches, way) for way in WAYS}
        table.add_row(scenario, *(cell(verdict) for verdict in verdicts.values()))
        explanations = [verdict.explanation for verdict in verdicts.values()]
        route_matters |= explanations[0] != explanations[1] or explanations[2] != explanations[3]
        for explanation in dict.fromkeys(filter(None, explanations)):
            ways = " and ".join(w for w, v in verdicts.items() if v.explanation == explanation and "," not in w)
            told[explanation].append(f"{scenario} ({ways})")
    console.print(table)
    for number, (explanation, places) in enumerate(told.items(), start=1):
        console.print(f"\n[bold]Difference {number}[/] in {'; '.join(places)}", soft_wrap=True)
        console.print(explanation)
    answer = "It matters to Lightning" if route_matters else "It makes no difference to Lightning"
    console.print(f"\n[bold]{answer} which way fills p.grad.[/]")
    return 0


def compare(config: Config, loop: str, microbatches: int, way: Way) -> Verdict:
    task = tasks.TASKS["digits_cnn"]()
    examples = tasks.to(task.train, config.device, training.PRECISIONS[config.precision].parameters)
    batches = list(
        islice(tasks.shuffled(examples, config.microbatch_size, torch.Generator().manual_seed(0)), microbatches)
    )
    candidate = under_lightning(build.lane(config, task, "backward"), config, way, batches)
    verdict = Verdict()
    windows = training.windows(batches, config.accumulation_steps, tasks.count)
    for found in lockstep(build.lane(config, task, loop), candidate, windows):
        verdict.add(found)
    return verdict


def cell(verdict: Verdict) -> str:
    if verdict.first is None:
        return "[green]identical[/]"
    found, mismatch = verdict.first
    return f"[red]step {found.step}, {found.phase.name.lower()}[/]: {mismatch.part}"


if __name__ == "__main__":
    raise SystemExit(main())
