"""Does it matter whether .backward() or autograd.grad fills p.grad?

You will see one model trained both ways in lockstep, and compared at every phase of every optimizer step.
"Identical" means that the two ways are one training; if they are not, you are told where they part, and why.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from gradparity import build, experiment, report
from gradparity.board import Board, new_folder
from gradparity.board.card import faults_page
from gradparity.board.layout import CONFIGURATION_PAGE, FAULTS_PAGE
from gradparity.cli import as_yaml, parse
from gradparity.config import Config
from gradparity.experiment import Answer, say
from gradparity.parity.lockstep import lockstep
from gradparity.parity.readings import Reader, Readings
from gradparity.parity.verdict import Verdict
from gradparity.tasks import TASKS, evaluate, to
from gradparity.training import PRECISIONS, Phase


def main(arguments: Sequence[str] | None = None) -> int:
    return experiment.run("train_two_ways", partial(parse, arguments, __doc__), two_ways)


def two_ways(config: Config, console: Console) -> Answer:
    folder = new_folder(config.output / config.name)
    folder.joinpath("config.yaml").write_text(as_yaml(config))
    verdicts: dict[str, Verdict] = {name: train(config, name, folder / name, console) for name in config.tasks}
    return Answer(
        sentence=report.answer(verdicts, "trainings are identical both ways"),
        holds=all(verdict.parity for verdict in verdicts.values()),
        folder=folder,
        pages="Time Series, Custom Scalars and Text",
    )


def train(config: Config, name: str, folder: Path, console: Console) -> Verdict:
    torch.set_num_threads(config.threads)
    task = TASKS[name]()
    held_out = to(task.held_out, config.device, PRECISIONS[config.precision].parameters)
    lanes = build.lanes(config, task)
    readers = [Reader(lane.run) for lane in lanes]
    history, metrics = list[Readings](), list[list[float]]()
    parameters = [parameter for parameter, _ in lanes[0].run.model.named_parameters()]

    with (
        Board(folder, name, parameters, config.candidate) as board,
        experiment.progress(config.quiet) as progress,
    ):
        board.told(CONFIGURATION_PAGE, report.configuration(as_yaml(config)))
        board.told(FAULTS_PAGE, faults_page())
        bar = progress.add_task(name, total=config.steps)
        for found in lockstep(*lanes, build.windows(config, task)):
            board.compared(found)
            ours, theirs = (r.take(m) for r, m in zip(readers, (found.reference, found.candidate), strict=True))
            if ours and theirs:
                history.append(ours)
                board.read(found.step, ours, theirs)
            done = found.step + 1
            if found.phase == Phase.STEPPED and (done % config.evaluate_every == 0 or done == config.steps):
                metrics.append([evaluate(lane.run.model, task, held_out) for lane in lanes])
                board.evaluated(done, task.metric_name, *metrics[-1])
            progress.update(bar, completed=done)

    verdict = board.verdict
    console.print(f"[bold]{name}[/]: .backward() against {config.candidate}, in {config.precision}")
    console.print(report.table(verdict))
    say(console, report.evidence(history))
    say(console, report.learning(task.metric_name, metrics))
    say(console, report.headline(verdict), style="green" if verdict.parity else "red")
    say(console, verdict.explanation)
    return verdict


if __name__ == "__main__":
    raise SystemExit(main())
