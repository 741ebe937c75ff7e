"""Does it matter whether .backward() or autograd.grad fills p.grad?

You will see one model trained both ways in lockstep, and compared at every phase of every optimizer step.
"Identical" means that the two ways are one training; if they are not, you are told where they part, and why.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from gradparity import build, checkpoint, report
from gradparity.board import Board, Found, alone_in, new_folder, tensorboard_command
from gradparity.board.card import faults_page
from gradparity.board.layout import CONFIGURATION_PAGE, FAULTS_PAGE
from gradparity.cli import SAVED, as_yaml, parse, resumed
from gradparity.config import Config
from gradparity.errors import DiskError, UserError, writing
from gradparity.parity.lockstep import lockstep
from gradparity.parity.readings import Reader
from gradparity.parity.verdict import Verdict
from gradparity.tasks import TASKS, evaluate, to
from gradparity.training import PRECISIONS, Phase
from gradparity.training.checkpoint import written_over


def main(arguments: Sequence[str] | None = None) -> int:
    console = Console(highlight=False)
    go_on = ""
    try:
        config, folder = resumed(arguments) or begun(parse(arguments, __doc__))
        go_on = f"; go on with --resume {shlex.quote(str(folder))}"
        with alone_in(folder):
            verdicts = [train(config, name, folder / name, console) for name in config.tasks]
    except DiskError as error:
        print(f"train_two_ways: {error}{go_on}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"train_two_ways: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"train_two_ways: {error}; choose a folder that can be written with --output", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"train_two_ways: stopped; what was written until now stays{go_on}", file=sys.stderr)
        return 130
    identical = sum(verdict.parity for verdict in verdicts)
    console.print(f"\n{identical} of {len(verdicts)} trainings are identical both ways.")
    console.print(f"See it: [bold]{tensorboard_command(folder)}[/]", soft_wrap=True)
    return 0 if all(verdict.parity for verdict in verdicts) else 1


def begun(config: Config) -> tuple[Config, Path]:
    folder = new_folder(config.output / config.name)
    with writing(folder / SAVED), written_over(folder / SAVED) as file:
        file.write(as_yaml(config).encode())
    return config, folder


def train(config: Config, name: str, folder: Path, console: Console) -> Verdict:
    torch.set_num_threads(config.threads)
    task = TASKS[name]()
    held_out = to(task.held_out, config.device, PRECISIONS[config.precision].parameters)
    lanes = build.lanes(config, task)
    readers = [Reader(lane.run) for lane in lanes]
    parameters = [parameter for parameter, _ in lanes[0].run.model.named_parameters()]
    until = checkpoint.resume(folder, config, lanes)
    evidence, metrics = until.evidence, until.metrics
    if until.done and not config.quiet:
        console.print(f"[bold]{name}[/] goes on after step {until.done} of {config.steps}.")
    if until.machine != report.machine():
        console.print(f"The steps before may round differently, by {until.machine}; here it is {report.machine()}.")

    with (
        Board(folder, name, parameters, config.candidate, until.found) as board,
        Progress(console=console, transient=True, disable=config.quiet) as progress,
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
                board.read(found.step, ours, theirs)
            done = found.step + 1
            ends_step = found.phase == Phase.STEPPED
            if ends_step and (done % config.evaluate_every == 0 or done == config.steps):
                metrics.append([evaluate(lane.run.model, task, held_out) for lane in lanes])
                board.evaluated(done, task.metric_name, *metrics[-1])
            if ends_step and done and (done % config.checkpoint_every == 0 or done == config.steps):
                board.sync()
                so_far = checkpoint.Progress(done, Found(board.verdict, board.spread), evidence, metrics)
                checkpoint.save(folder, config, lanes, so_far)
            progress.update(bar, completed=done)

    verdict = board.verdict
    if not config.quiet:
        console.print(f"[bold]{name}[/]: .backward() against {config.candidate}, in {config.precision}")
        console.print(report.table(verdict))
        console.print(str(evidence))
        console.print(report.learning(task.metric_name, metrics))
    subject = f"{name}: " if config.quiet else ""
    console.print(subject + report.headline(verdict), style="bold green" if verdict.parity else "bold red")
    if verdict.explanation:
        console.print(verdict.explanation)
    return verdict


if __name__ == "__main__":
    raise SystemExit(main())
