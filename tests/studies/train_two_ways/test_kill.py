"""A run that is killed leaves what can be read, and who goes on from it ends in the bits of one that was never killed.

``KILLS=100 python -m pytest -m kill`` kills as often; without it a few times, in some seconds.
"""

import json
import math
import os
import random
import shutil
import signal
import time
from collections import Counter
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import killed
from disk import mounted
from gradparity.studies.train_two_ways.checkpoint import CHECKPOINT, CHECKPOINT_CLASSES, LANES, PROGRESS
from gradparity.studies.train_two_ways.command_line import SAVED_CONFIG
from gradparity.tensorboard import FIGURES_FILE
from gradparity.tensorboard.events import EVENTS
from gradparity.trace.trace_file import TRACE_FILE as TRACE
from gradparity.trace.trace_file import missing_tensor_files, read

pytestmark = pytest.mark.kill

KILLS = int(os.environ.get("KILLS", "6"))
SCRIPT = "train_two_ways"
RUN = Path("runs", "two_ways", "1")
STEPS, EVERY = 9, 2
ARGUMENTS = [
    "--task", "digits_cnn", "--precision", "fp16", "--microbatch_size", "4", "--steps", STEPS, "--checkpoint_every", EVERY,
    "--evaluate_every", "5", "--scaler.growth_interval", "2", "--quiet",
]  # fmt: skip
"""Dropout, BatchNorm, a loss scale that overflows, and three epochs, the last window of each partial."""

TRACES = Path("runs", "watch_a_loop", "1")

AGAIN = ["--resume", RUN, "--quiet"]


class Unbroken(NamedTuple):
    """A run that nobody killed."""

    where: Path
    seconds: float
    operations: int
    """On files."""

    @property
    def folder(self):
        return self.where / RUN / "digits_cnn"

    def at(self, done):
        """The contents of the checkpoint after so many steps."""
        return contents(self.where / "kept" / f"{done}.zip")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    killed.begin_forkserver()
    where = tmp_path_factory.mktemp("unbroken")
    (where / "kept").mkdir()
    watched = (
        partial(killed.keeps_checkpoints, where / "kept"),
        partial(killed.counts_file_operations, where / "count"),
    )
    killed.FORKS.Process().start()  # which waits until everything has been imported
    began = time.perf_counter()
    assert killed.run(where, SCRIPT, ARGUMENTS, *watched) == (0, "")
    seconds = time.perf_counter() - began
    evidence = torch_load(where / RUN / "digits_cnn" / CHECKPOINT)["progress"].evidence
    assert evidence.skipped
    assert evidence.steps == STEPS
    return Unbroken(where, seconds, int((where / "count").read_text()))


# What is there.


def torch_load(path):
    with ZipFile(path) as archive, torch.serialization.safe_globals(list(CHECKPOINT_CLASSES)):
        return torch.load(BytesIO(archive.read(PROGRESS)), weights_only=True)


def contents(path):
    """All that a checkpoint holds, in bits, but for the lengths of files that have the time in their names."""
    with ZipFile(path) as archive:
        lanes = [torch.load(BytesIO(archive.read(name)), weights_only=True) for name in LANES]
    return plain([lanes, {**torch_load(path), "lengths": None}])


def plain(value):
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return plain(vars(value)) if type(value) in CHECKPOINT_CLASSES and hasattr(value, "__dict__") else value


def events(folder):
    """What TensorBoard reads there, in its order."""
    files = sorted(folder.glob("*.tfevents.*"))
    read = (event for file in files for event in EventFileLoader(str(file)).Load() if event.HasField("summary"))
    return [(event.step, value.tag, value.SerializeToString()) for event in read for value in event.summary.value]


def boards(folder):
    return {run: events(folder / run) for run in ("by_backward", "by_manual", "how_far_apart")}


def check(where, unbroken):
    """Whatever a killed run has left is a part of what one that nobody killed has written."""
    ours, theirs = unbroken.folder, where / RUN / "digits_cnn"
    configs = [folder.parent.joinpath("config.yaml") for folder in (ours, theirs)]
    assert not configs[1].exists() or configs[0].read_bytes() == configs[1].read_bytes()
    if (theirs / FIGURES_FILE).exists():
        figures = (theirs / FIGURES_FILE).read_bytes()
        assert (ours / FIGURES_FILE).read_bytes().startswith(figures)
        assert all(json.loads(line) for line in figures.split(b"\n")[:-1])
    if (theirs / CHECKPOINT).exists():
        done = torch_load(theirs / CHECKPOINT)["progress"].done
        assert done in {*range(EVERY, STEPS, EVERY), STEPS}
        assert contents(theirs / CHECKPOINT) == unbroken.at(done)
    for run, whole in boards(ours).items():
        found = events(theirs / run)
        assert found == whole[: len(found)]


def told(where):
    """But for the way to TensorBoard."""
    return " ".join((where / "stdout").read_text().split("See it: ")[0].split())


def others(where, unbroken):
    """What is not the same at the end, in every bit: both lanes and what was found, every step once, what was told."""
    ours, theirs = unbroken.folder, where / RUN / "digits_cnn"
    same = {
        "checkpoint": contents(theirs / CHECKPOINT) == unbroken.at(STEPS),
        "figures": (theirs / FIGURES_FILE).read_bytes() == (ours / FIGURES_FILE).read_bytes(),
        "events": boards(theirs) == boards(ours),
        "words": told(where) == told(unbroken.where),
    }
    return [name for name, holds in same.items() if not holds]


# Kills.


def moment(chance, unbroken):
    """Any time, the end of any comparison, any byte of a file, or any operation on one; and what brings it about."""
    comparisons = len((unbroken.folder / FIGURES_FILE).read_bytes().splitlines())
    longest = max(path.stat().st_size for path in unbroken.folder.rglob("*.*"))
    kind = chance.choice(["time", "comparison", "byte", "operation"])
    return kind, {
        "time": partial(after, chance.uniform(0, unbroken.seconds)),
        "comparison": partial(killed.dies_at_comparison, chance.randint(1, comparisons)),
        "byte": partial(killed.dies_at_byte, round(math.exp(chance.uniform(0, math.log(longest))))),
        "operation": partial(killed.dies_at_file_operation, chance.randint(1, unbroken.operations)),
    }[kind]


def after(seconds, process):
    process.join(seconds)
    process.kill()


def kill(where, how):
    """Start, or go on, and be killed; whether it was, before it came to its end."""
    begun = (where / RUN / "config.yaml").exists()
    if not begun:
        shutil.rmtree(where / "runs", ignore_errors=True)
    timed = how.func is after
    process = killed.start(where, SCRIPT, AGAIN if begun else ARGUMENTS, *([] if timed else [how]))
    if timed:
        how(process)
    process.join()
    assert process.exitcode <= 0, (where / "stderr").read_text()
    return process.exitcode < 0


def go_on(where, *first):
    if not (where / RUN / "config.yaml").exists():
        shutil.rmtree(where / "runs", ignore_errors=True)
        return killed.run(where, SCRIPT, ARGUMENTS, *first)
    return killed.run(where, SCRIPT, AGAIN, *first)


@pytest.mark.many
def test_killed_at_random_moments_it_ends_in_the_same_bits(unbroken, tmp_path):
    chance, kills = random.Random(KILLS), Counter()
    for number in range(4 * KILLS):
        where = tmp_path / str(number)
        where.mkdir()
        for _ in range(3):  # in the first run, and again while it goes on
            kind, how = moment(chance, unbroken)
            kills[kind] += kill(where, how)
            check(where, unbroken)
        assert go_on(where) == (0, "")
        assert others(where, unbroken) == []
        shutil.rmtree(where)
        if kills.total() >= KILLS:
            print(f"\n{kills.total()} kills in {number + 1} runs: {dict(kills)}")
            return
    pytest.fail(f"only {kills.total()} of {12 * KILLS} came before the end of their run")


@pytest.mark.many
def test_a_recording_that_is_killed_can_be_read_with_every_tensor_that_it_names(unbroken, tmp_path):
    (tmp_path / "whole").mkdir()
    assert killed.run(tmp_path / "whole", "watch_a_loop", [])[0] == 0
    whole = tmp_path / "whole" / TRACES
    longest = max(path.stat().st_size for path in whole.rglob("*.*"))
    operations = len(list(whole.rglob("*.*")))
    chance, kills = random.Random(KILLS), 0
    for number in range(-(-KILLS // 2)):
        how = chance.choice(
            [
                partial(killed.dies_at_byte, round(math.exp(chance.uniform(0, math.log(longest))))),
                partial(killed.dies_at_file_operation, chance.randint(1, operations)),
            ]
        )
        where = tmp_path / str(number)
        where.mkdir()
        killed.run(where, "watch_a_loop", [], how)
        for folder in sorted((where / TRACES).glob("*")):
            text = (folder / TRACE).read_bytes() if (folder / TRACE).exists() else b""
            assert (whole / folder.name / TRACE).read_bytes().startswith(text)
            if b"\n" in text:
                trace = read(folder)
                *lines, _ = text.split(b"\n")
                assert len(trace.records) == sum(line.startswith(b'{"event"') for line in lines)
                assert missing_tensor_files(trace) == 0
                kills += not trace.complete
    assert kills


def test_two_processes_do_not_write_one_run(unbroken, tmp_path):
    (tmp_path / "second").mkdir()
    first = killed.start(tmp_path, SCRIPT, ARGUMENTS)
    while not (tmp_path / RUN / "digits_cnn" / CHECKPOINT).exists():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    code, errors = killed.run(tmp_path / "second", SCRIPT, ["--resume", tmp_path / RUN])
    os.kill(first.pid, signal.SIGCONT)
    assert code == 2
    assert (
        errors
        == f"train_two_ways: {tmp_path / RUN} is being written by another process; wait until it ends, or stop it\n"
    )
    first.join()
    assert first.exitcode == 0
    assert others(tmp_path, unbroken) == []


@pytest.fixture(scope="module")
def within_a_window(unbroken, tmp_path_factory):
    """A run killed in the second microbatch of the sixth step, for which dropout has drawn its mask."""
    where = tmp_path_factory.mktemp("killed")
    records = [json.loads(line) for line in (unbroken.folder / FIGURES_FILE).read_text().splitlines()]
    place = {"step": 5, "phase": "forward", "microbatch": 1}
    (number,) = (i for i, record in enumerate(records, start=1) if place.items() <= record.items())
    assert kill(where, partial(killed.dies_at_comparison, number))
    *_, last = (where / RUN / "digits_cnn" / FIGURES_FILE).read_text().splitlines()
    assert place.items() <= json.loads(last).items()
    assert torch_load(where / RUN / "digits_cnn" / CHECKPOINT)["progress"].done == 4
    check(where, unbroken)
    return where


def test_an_open_window_is_taken_again_from_its_first_microbatch(unbroken, within_a_window, tmp_path):
    shutil.copytree(within_a_window, tmp_path / "again")
    assert go_on(tmp_path / "again") == (0, "")
    assert others(tmp_path / "again", unbroken) == []
    assert go_on(tmp_path / "again") == (0, ""), "of a run that has come to its end there is nothing left to do"
    assert others(tmp_path / "again", unbroken) == []


def test_a_different_machine_is_reported(unbroken, within_a_window, tmp_path):
    shutil.copytree(within_a_window, tmp_path / "again")
    code, warning = go_on(tmp_path / "again", killed.is_another_machine)
    assert code == 0
    assert "Earlier steps may round differently: they ran on torch " in warning
    assert ", and this is torch 1.0." in warning
    assert "differently" not in (unbroken.where / "stderr").read_text()


FORGETTING = {
    "random numbers": partial(killed.forgets, "rng"),
    "loss scale": partial(killed.forgets, "scaler"),
    "order of the data": killed.forgets_the_order_of_the_data,
    "what was written": killed.forgets_what_was_written,
}


@pytest.mark.parametrize("what", FORGETTING)
def test_a_resume_that_forgets_something_is_not_the_same_run(unbroken, within_a_window, what, tmp_path):
    shutil.copytree(within_a_window, tmp_path / "again")
    code, _ = go_on(tmp_path / "again", FORGETTING[what])
    assert code == 0, "both lanes forget it, so that they are still identical to each other"
    assert others(tmp_path / "again", unbroken) != []


def test_a_checkpoint_that_is_written_in_place_is_found_torn(unbroken, tmp_path):
    code, _ = killed.run(tmp_path, SCRIPT, ARGUMENTS, killed.writes_in_place, partial(killed.dies_at_byte, 100_000))
    assert code < 0
    with pytest.raises(Exception, match="zip"):
        check(tmp_path, unbroken)
    code, errors = go_on(tmp_path)
    assert code == 2
    assert errors.splitlines() == [
        f"train_two_ways: {RUN}/digits_cnn/{CHECKPOINT} is not a whole checkpoint of this training (File is not a zip file); "
        "move it away to train from the first step"
    ]


# Disks that are full, or may not be written.


@pytest.mark.parametrize(("length", "full"), [(300, SAVED_CONFIG), (20_000, EVENTS), (100_000, CHECKPOINT)])
def test_a_full_disk_is_one_sentence_and_the_run_can_be_resumed(unbroken, length, full, tmp_path):
    code, errors = killed.run(tmp_path, SCRIPT, ARGUMENTS, partial(killed.has_a_full_disk, length))
    assert code == 2
    (sentence,) = errors.splitlines()
    start, end = sentence.split(" cannot be written (File too large); make room there")
    assert start.startswith(f"train_two_ways: {RUN}")
    assert full in start
    assert end == (f"; continue with --resume {RUN}" if full != SAVED_CONFIG else "")
    assert not [*tmp_path.rglob("*.partial")]
    check(tmp_path, unbroken)
    assert go_on(tmp_path) == (0, "")
    assert others(tmp_path, unbroken) == []


def test_a_disk_that_fills_up_and_one_that_may_not_be_written(unbroken, tmp_path):
    with mounted(tmp_path / "disk", "500k") as again:
        if again is None:
            pytest.skip("needs to mount a disk")
        code, errors = killed.run(tmp_path / "disk", SCRIPT, ARGUMENTS)
        assert code == 2
        (sentence,) = errors.splitlines()
        assert "checkpoint.zip cannot be written (No space left on device); make room there; continue with" in sentence
        check(tmp_path / "disk", unbroken)
        again("size=20m,ro")
        code, errors = killed.run(tmp_path, SCRIPT, ["--resume", tmp_path / "disk" / RUN])
        assert code == 2
        assert errors.count("\n") == 1
        assert "(Read-only file system); make it writable, or choose another folder" in errors
        again("rw")
        assert go_on(tmp_path / "disk") == (0, "")
        assert others(tmp_path / "disk", unbroken) == []
