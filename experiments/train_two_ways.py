"""Does it matter whether .backward() or autograd.grad fills p.grad?

You will see one model trained both ways in lockstep, and compared at every phase of every optimizer step.
"Identical" means that the two ways are one training; if they are not, you are told where they part, and why.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from gradparity.errors import DiskError, writing
from gradparity.parity import report
from gradparity.parity.lockstep import lockstep
from gradparity.parity.step_metrics import Reader
from gradparity.parity.verdict import Verdict
from gradparity.studies import experiment
from gradparity.studies.experiment import Finished
from gradparity.studies.result import Result, say
from gradparity.studies.tasks import TASKS, evaluate, to
from gradparity.studies.two_ways import build, checkpoint
from gradparity.studies.two_ways.cli import SAVED, as_yaml, parse, resumed
from gradparity.studies.two_ways.config import Config
from gradparity.tensorboard import Board, Found, alone_in, new_folder
from gradparity.tensorboard.first_difference import faults_page
from gradparity.tensorboard.layout import CONFIGURATION_PAGE, FAULTS_PAGE
from gradparity.training import PRECISIONS, Phase
from gradparity.training.checkpoint import written_over


def main(arguments: Sequence[str] | None = None) -> int:
    return experiment.run("train_two_ways", partial(asked_for, arguments), two_ways)


class Asked(NamedTuple):
    config: Config
    folder: Path
    quiet: bool


def asked_for(arguments: Sequence[str] | None) -> Asked:
    config, folder = resumed(arguments) or begun(parse(arguments, __doc__))
    return Asked(config, folder, config.quiet)


def begun(config: Config) -> tuple[Config, Path]:
    folder = new_folder(config.output / config.name)
    with writing(folder / SAVED), written_over(folder / SAVED) as file:
        file.write(as_yaml(config).encode())
    return config, folder


def two_ways(asked: Asked, console: Console) -> Finished:
    config, folder, _ = asked
    with alone_in(folder), told_how_to_go_on(folder):
        verdicts: dict[str, Verdict] = {name: train(config, name, folder / name, console) for name in config.tasks}
    result = Result(
        sentence=report.answer(verdicts, "trainings are identical both ways"),
        holds=all(verdict.parity for verdict in verdicts.values()),
    )
    return Finished(result, folder, "Time Series, Custom Scalars and Text")


def train(config: Config, name: str, folder: Path, console: Console) -> Verdict:
    torch.set_num_threads(config.threads)
    task = TASKS[name]()
    held_out = to(task.held_out, config.device, PRECISIONS[config.precision].parameters)
    lanes = build.lanes(config, task)
    readers = [Reader(lane.run) for lane in lanes]
    parameters = [parameter for parameter, _ in lanes[0].run.model.named_parameters()]
    until = checkpoint.resume(folder, config, lanes)
    evidence, metrics = until.evidence, until.metrics
    if until.done:
        say(console, f"{name} goes on after step {until.done} of {config.steps}.")
    if until.machine != report.machine():
        differs = f"The steps before may round differently, by {until.machine}; here it is {report.machine()}."
        say(Console(stderr=True, highlight=False), differs)

    with (
        Board(folder, name, parameters, config.candidate, until.found) as board,
        experiment.progress(config.quiet) as progress,
    ):
        if until.done == 0:
            board.told(CONFIGURATION_PAGE, report.configuration(as_yaml(config)))
            board.told(FAULTS_PAGE, faults_page())
        bar = progress.add_task(name, total=config.steps, completed=until.done)
        for found in lockstep(*lanes, build.windows(config, task, until.done), until.done):
            board.compared(found)
            ours, theirs = (r.take(m) for r, m in zip(readers, (found.reference, found.candidate), strict=True))
            if ours and theirs:
                evidence.add(ours)
                board.read(found.place.step, ours, theirs)
            done = found.place.step + 1
            ends_step = found.place.phase == Phase.STEPPED
            if ends_step and (done % config.evaluate_every == 0 or done == config.steps):
                metrics.append([evaluate(lane.run.model, task, held_out) for lane in lanes])
                board.evaluated(done, task.metric_name, *metrics[-1])
            if ends_step and done and (done % config.checkpoint_every == 0 or done == config.steps):
                board.sync()
                so_far = checkpoint.Progress(done, Found(board.verdict, board.spread), evidence, metrics)
                checkpoint.save(folder, config, lanes, so_far)
            progress.update(bar, completed=done)

    verdict = board.verdict
    console.print(f"[bold]{name}[/]: .backward() against {config.candidate}, in {config.precision}")
    console.print(report.table(verdict))
    say(console, str(evidence))
    say(console, report.learning(task.metric_name, metrics))
    say(console, report.headline(verdict), style="green" if verdict.parity else "red")
    say(console, verdict.explanation)
    return verdict


@contextmanager
def told_how_to_go_on(folder: Path) -> Iterator[None]:
    go_on = f"; go on with --resume {shlex.quote(str(folder))}"
    try:
        yield
    except DiskError as error:
        raise DiskError(f"{error}{go_on}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(go_on) from None


if __name__ == "__main__":
    raise SystemExit(main())
