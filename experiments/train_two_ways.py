"""Does it matter whether .backward() or autograd.grad fills p.grad?

You will see one model trained both ways in lockstep, and compared at every phase of every optimizer step.
"Identical" means that both ways are the same training; if not, you see where they first differ, and why.
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
from gradparity.parity.lockstep import Comparison, LockstepRun, lockstep
from gradparity.parity.step_metrics import StepMetricsReader
from gradparity.parity.verdict import Verdict, verdict_of
from gradparity.studies import experiment
from gradparity.studies.experiment import Finished
from gradparity.studies.result import Result, say
from gradparity.studies.tasks import TASKS, held_out_metric, move_examples
from gradparity.studies.train_two_ways import build, checkpoint
from gradparity.studies.train_two_ways.command_line import SAVED_CONFIG, as_yaml, parse_config, parse_resume
from gradparity.studies.train_two_ways.config import Config
from gradparity.tensorboard import Board, exclusive_lock, new_folder
from gradparity.tensorboard.divergence_map import DivergenceMap
from gradparity.tensorboard.first_difference import faults_page
from gradparity.tensorboard.layout import CONFIGURATION_PAGE, FAULTS_PAGE
from gradparity.training import PRECISIONS, Phase
from gradparity.training.checkpoint import written_over


def main(arguments: Sequence[str] | None = None) -> int:
    return experiment.run("train_two_ways", partial(requested, arguments), two_ways)


class Request(NamedTuple):
    config: Config
    folder: Path
    quiet: bool


def requested(arguments: Sequence[str] | None) -> Request:
    config, folder = parse_resume(arguments) or begun(parse_config(arguments, __doc__))
    return Request(config, folder, config.quiet)


def begun(config: Config) -> tuple[Config, Path]:
    folder = new_folder(config.output / config.name)
    with writing(folder / SAVED_CONFIG), written_over(folder / SAVED_CONFIG) as file:
        file.write(as_yaml(config).encode())
    return config, folder


def two_ways(request: Request, console: Console) -> Finished:
    config, folder, _ = request
    with exclusive_lock(folder), say_how_to_resume(folder):
        verdicts: dict[str, Verdict] = {name: train(config, name, folder / name, console) for name in config.tasks}
    result = Result(
        sentence=report.parity_sentence(verdicts, "trainings are identical both ways"),
        holds=all(verdict.parity for verdict in verdicts.values()),
    )
    return Finished(result, folder, "Time Series, Custom Scalars and Text")


def train(config: Config, name: str, folder: Path, console: Console) -> Verdict:
    torch.set_num_threads(config.threads)
    task = TASKS[name]()
    held_out = move_examples(task.held_out, config.device, PRECISIONS[config.precision].parameters)
    lanes = build.lanes(config, task)
    readers = [StepMetricsReader(lane.run) for lane in lanes]
    so_far = resumed_progress(folder, config, name, lanes, console)
    verdict, begin = so_far.verdict, so_far.done

    with (
        Board(folder, name, verdict, so_far.divergence_map, config.candidate, resumed=begin > 0) as board,
        experiment.progress(config.quiet) as progress,
    ):
        if begin == 0:
            board.add_page(CONFIGURATION_PAGE, report.configuration(as_yaml(config)))
            board.add_page(FAULTS_PAGE, faults_page())
        bar = progress.add_task(name, total=config.steps, completed=begin)

        def watch(found: Comparison) -> None:
            board.add_comparison(found)
            ours, theirs = (r.take(m) for r, m in zip(readers, (found.reference, found.candidate), strict=True))
            if ours and theirs:
                so_far.evidence.add(ours)
                board.add_metrics(found.place.step, ours, theirs)
            if found.place.phase != Phase.STEPPED:
                return
            so_far.done = found.place.step + 1
            if is_due(so_far.done, config.evaluate_every, config):
                so_far.metrics.append([held_out_metric(lane.run.model, task, held_out) for lane in lanes])
                board.add_evaluation(so_far.done, task.metric_name, *so_far.metrics[-1])
            if so_far.done and is_due(so_far.done, config.checkpoint_every, config):
                board.sync()
                checkpoint.save_progress(folder, config, lanes, so_far)
            progress.update(bar, completed=so_far.done)

        verdict_of(lockstep(*lanes, build.windows(config, task, begin), begin), watch, verdict=verdict)

    console.print(f"[bold]{name}[/]: .backward() against {config.candidate}, in {config.precision}")
    console.print(report.verdict_table(verdict))
    say(console, str(so_far.evidence))
    say(console, report.learning(task.metric_name, so_far.metrics))
    say(console, report.verdict_headline(verdict), style="green" if verdict.parity else "red")
    say(console, verdict.explanation)
    return verdict


def resumed_progress(
    folder: Path, config: Config, name: str, lanes: Sequence[LockstepRun], console: Console
) -> checkpoint.Progress:
    so_far = checkpoint.resume_progress(folder, config, lanes)
    if so_far.divergence_map is None:
        so_far.divergence_map = DivergenceMap([name for name, _ in lanes[0].run.model.named_parameters()])
    if so_far.done:
        say(console, f"{name} continues after step {so_far.done} of {config.steps}.")
    if so_far.machine != report.machine():
        differs = f"Earlier steps may round differently: they ran on {so_far.machine}, and this is {report.machine()}."
        say(Console(stderr=True, highlight=False), differs)
        so_far.machine = report.machine()
    return so_far


def is_due(done: int, every: int, config: Config) -> bool:
    return done % every == 0 or done == config.steps


@contextmanager
def say_how_to_resume(folder: Path) -> Iterator[None]:
    advice = f"; continue with --resume {shlex.quote(str(folder))}"
    try:
        yield
    except DiskError as error:
        raise DiskError(f"{error}{advice}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(advice) from None


if __name__ == "__main__":
    raise SystemExit(main())
