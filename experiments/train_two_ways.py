"""Does it matter whether .backward() or autograd.grad fills p.grad?

You will see one model trained both ways in lockstep, and compared at every phase of every optimizer step.
"Identical" means that the two ways are one training; if they are not, you are told where they part, and why.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from gradparity import build, report
from gradparity.board import Board, new_folder, tensorboard_command
from gradparity.board.card import faults_page
from gradparity.board.layout import CONFIGURATION_PAGE, FAULTS_PAGE
from gradparity.cli import as_yaml, parse
from gradparity.config import Config
from gradparity.errors import UserError
from gradparity.parity.lockstep import lockstep
from gradparity.parity.readings import Reader, Readings
from gradparity.parity.verdict import Verdict
from gradparity.tasks import TASKS, evaluate, to
from gradparity.training import PRECISIONS, Phase


def main(arguments: Sequence[str] | None = None) -> int:
    console = Console(highlight=False)
    try:
        config = parse(arguments, __doc__)
        folder = new_folder(config.output / config.name)
        folder.joinpath("config.yaml").write_text(as_yaml(config))
        verdicts = [train(config, name, folder / name, console) for name in config.tasks]
    except UserError as error:
        print(f"train_two_ways: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"train_two_ways: {error}; choose a folder that can be written with --output", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train_two_ways: stopped; what was written until now stays", file=sys.stderr)
        return 130
    identical = sum(verdict.parity for verdict in verdicts)
    console.print(f"\n{identical} of {len(verdicts)} trainings are identical both ways.")
    console.print(f"See it: [bold]{tensorboard_command(folder)}[/]", soft_wrap=True)
    return 0 if all(verdict.parity for verdict in verdicts) else 1


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
        Progress(console=console, transient=True, disable=config.quiet) as progress,
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
    if not config.quiet:
        console.print(f"[bold]{name}[/]: .backward() against {config.candidate}, in {config.precision}")
        console.print(report.table(verdict))
        console.print(report.evidence(history))
        console.print(report.learning(task.metric_name, metrics))
    subject = f"{name}: " if config.quiet else ""
    console.print(subject + report.headline(verdict), style="bold green" if verdict.parity else "bold red")
    if verdict.explanation:
        console.print(verdict.explanation)
    return verdict


if __name__ == "__main__":
    raise SystemExit(main())
