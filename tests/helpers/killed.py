"""Processes to be killed: forked from one that has imported everything, so that each costs no more than its training.

What a child is told to do first is a function of this module, such as :func:`dies_at_comparison`.
"""

import copy
import itertools
import multiprocessing
import multiprocessing.forkserver
import os
import resource
import shutil
import signal
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path

import torch
from matplotlib.figure import Figure

from gradparity import training
from gradparity.parity import report
from gradparity.studies.tasks import TASKS
from gradparity.studies.train_two_ways import build, checkpoint
from gradparity.tensorboard import Board, map_picture
from small import small_task

HERE = Path(__file__).parent
EXPERIMENTS = HERE.parents[1] / "experiments"
FORKS = multiprocessing.get_context("forkserver")
IMPORTED = [
    "killed",
    "gradparity.studies.distributed.trial",
    "train_two_ways",
    "watch_a_loop",
    "torch._dynamo",
    "matplotlib.backends.backend_agg",
    "PIL.PngImagePlugin",
]
"""Before the first fork: what a training imports, at once or late."""

SMALL = {name: replace(small_task(name), held_out=small_task(name).train) for name in ("digits_cnn", "transformer")}


def begin_forkserver():
    """Once; what the tests have on their path, and its children are to have, it finds in the environment."""
    # There is one for a process, and other tests may have begun theirs, which knows nothing of this module.
    multiprocessing.forkserver._forkserver._stop()
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(EXPERIMENTS), *sys.path])
    FORKS.set_forkserver_preload(IMPORTED)
    multiprocessing.forkserver.ensure_running()
    os.environ["PYTHONPATH"] = before


def start(where, script, arguments, *first):
    """A process that calls ``main(arguments)`` of a script of experiments/ in the folder ``where``, after all ``first``."""
    process = FORKS.Process(target=call, args=(where, script, list(map(str, arguments)), first))
    process.start()
    return process


def run(where, script, arguments, *first):
    """The exit code of such a process, and what it has printed to stderr."""
    process = start(where, script, arguments, *first)
    process.join()
    return process.exitcode, (where / "stderr").read_text()


def call(where, script, arguments, first):
    torch.set_num_threads(1)
    TASKS.update({name: partial(replace, task) for name, task in SMALL.items()})
    map_picture.draw_overview = map_picture.draw_phase = lambda *_: Figure(
        figsize=(1, 1)
    )  # else they are half of the time
    os.chdir(where)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for prepare in first:
        prepare()
    code = import_module(script).main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# How it dies.


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at_comparison(number):
    """When the figures of so many comparisons have been written."""
    counted, compared = itertools.count(1), Board.add_comparison

    def then_dies(board, found):
        compared(board, found)
        if next(counted) == number:
            die()

    Board.add_comparison = then_dies


def dies_at_file_operation(number):
    """Just before the system is asked, for so manieth time, to open, rename, cut or remove a file."""
    counted = itertools.count(1)

    def hook(event, _):
        if event in OPERATIONS and next(counted) == number:
            die()

    sys.addaudithook(hook)


OPERATIONS = ("open", "os.rename", "os.truncate", "os.remove")


def dies_at_byte(number):
    """In the middle of the write that would make any file longer; the file then has exactly so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def has_a_full_disk(length):
    """No file can become longer, and the process is told so, and goes on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, length))


def is_another_machine():
    """As far as it knows."""
    report.machine = lambda: "torch 1.0"


# What an unbroken run is asked for.


def counts_file_operations(path):
    """And writes down how many there were when the process ends well."""
    counted, end = itertools.count(), os._exit
    sys.addaudithook(lambda event, _: event in OPERATIONS and next(counted))

    def counted_end(code):
        path.write_text(str(next(counted)))
        end(code)

    os._exit = counted_end


def keeps_checkpoints(folder):
    """Copies of all."""
    save = checkpoint.save_progress

    def kept(where, config, lanes, progress):
        save(where, config, lanes, progress)
        shutil.copy(where / checkpoint.CHECKPOINT, folder / f"{progress.done}.zip")

    checkpoint.save_progress = kept


# Ways to do it wrong, for negative controls.


def writes_in_place():
    """A checkpoint is written over the one before, as ``open(path, "wb")`` does."""
    checkpoint.written_over = partial(Path.open, mode="wb")


def forgets(what):
    """A resume brings back all but one thing."""
    resume = training.resume

    def forgetful(run, file):
        state = {"rng": torch.get_rng_state, "scaler": run.scaler.state_dict, "scheduler": run.scheduler.state_dict}
        state |= {"model": run.model.state_dict, "optimizer": run.optimizer.state_dict}
        fresh = copy.deepcopy(state[what]())
        resume(run, file)
        torch.set_rng_state(fresh) if what == "rng" else getattr(run, what).load_state_dict(fresh)

    training.resume = forgetful


def forgets_the_order_of_the_data():
    """A resume begins with the first window again."""
    windows = build.windows
    build.windows = lambda config, task, done: islice(windows(config, task), config.steps - done)


def forgets_what_was_written():
    """A resume appends to what is there."""
    checkpoint.truncate_files = lambda folder, kept: None
