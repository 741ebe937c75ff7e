"""A checkpoint: whole or refused, and whoever goes on from it makes the same bits; what it does not hold makes others."""

import json
import os
import random
import shutil
from dataclasses import asdict, make_dataclass, replace
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch

from gradparity.errors import UserError
from gradparity.parity import report
from gradparity.parity.bits import same_bits
from gradparity.parity.lockstep import lockstep
from gradparity.parity.place_in_training import START
from gradparity.parity.verdict import Verdict
from gradparity.studies.tasks import TASKS
from gradparity.studies.train_two_ways import build, checkpoint
from gradparity.studies.train_two_ways.checkpoint import (
    CHECKPOINT,
    LANES,
    PROGRESS,
    Progress,
    resume_progress,
    save_progress,
)
from gradparity.tensorboard import FIGURES_FILE, Board
from gradparity.tensorboard.board import file_lengths
from gradparity.tensorboard.divergence_map import DivergenceMap
from gradparity.training import Phase
from small import small_config, small_task

HALF, STEPS = 5, 9
"""The checkpoint is taken in the second epoch, after its first window; the third epoch is begun."""


def trained(config, lanes, until=None, steps=STEPS):
    """The progress after ``steps``, continued from ``until``, and what was gathered."""
    names = [name for name, _ in lanes[0].run.model.named_parameters()]
    until = until or Progress(0, Verdict(), DivergenceMap(names))
    verdict, divergence_map, done = until.verdict, until.divergence_map, until.done
    comparisons = []
    for comparison in lockstep(
        *lanes, build.windows(replace(config, steps=steps), small_task(config.task), done), done
    ):
        verdict.add(comparison)
        divergence_map.add(comparison)
        comparisons.append((comparison.place, comparison.numbers))
    return Progress(steps, verdict, divergence_map), comparisons


def states(lanes):
    """The bits of both, by name."""
    for index, lane in enumerate(lanes):
        run = lane.run
        yield from ((f"{index} {name}", value) for name, value in run.model.state_dict().items())
        for number, state in run.optimizer.state_dict()["state"].items():
            yield from ((f"{index} {number} {name}", value) for name, value in state.items())
        yield f"{index} rng", lane.random.state["cpu"]
        yield f"{index} scaler", torch.tensor(run.scaler.get_scale())
        yield f"{index} rate", torch.tensor(run.optimizer.param_groups[0]["lr"], dtype=torch.float64)


def others(ours, theirs):
    """The names of what differs."""
    ours, theirs = dict(states(ours)), dict(states(theirs))
    assert ours.keys() == theirs.keys()
    return [
        name for name, value in ours.items() if value.shape != theirs[name].shape or not same_bits(value, theirs[name])
    ]


def gone_on(config, folder):
    """Both lanes at the end of a training that was stopped halfway, and what was gathered and found of each half."""
    lanes = build.lanes(config, small_task(config.task))
    halfway, first = trained(config, lanes, steps=HALF)
    Board(folder, config.task, halfway.verdict).__exit__(None, None, None)
    save_progress(folder, config, lanes, halfway)
    again = build.lanes(config, small_task(config.task))
    until = resume_progress(folder, config, again)
    assert until.done == HALF
    found, second = trained(config, again, until)
    return again, found, first + second


FP16 = small_config(task="digits_cnn", precision="fp16", steps=STEPS)
QUICK = [name for name in TASKS if name != "compiled"]


@pytest.mark.parametrize("task", QUICK)
def test_every_task_resumes_in_the_same_bits(task, tmp_path):
    config = replace(FP16, task=task, precision="bf16" if task in ("digits_cnn", "transformer") else "fp32")
    whole = build.lanes(config, small_task(task))
    found, comparisons = trained(config, whole)
    again, found_again, comparisons_again = gone_on(config, tmp_path)
    assert others(whole, again) == []
    assert comparisons_again == comparisons
    assert comparisons[0][0] == START
    assert found_again.verdict == found.verdict
    assert found.verdict.parity


def test_a_state_outside_of_the_buffers_makes_a_difference(tmp_path, monkeypatch):
    config = replace(FP16, task="gru", precision="fp32")
    whole = build.lanes(config, small_task("gru"))
    trained(config, whole)
    monkeypatch.setattr("gradparity.studies.tasks.text_streams.Recurrent.set_extra_state", lambda module, state: None)
    again, *_ = gone_on(config, tmp_path)
    assert others(whole, again)


def test_a_difference_that_was_found_is_still_explained_after_a_resume(tmp_path):
    config = replace(FP16, candidate="clip-before-unscale")
    whole = build.lanes(config, small_task(config.task))
    found, _ = trained(config, whole)
    again, found_again, _ = gone_on(config, tmp_path)
    assert others(whole, again) == []
    assert found.verdict.first is not None
    assert report.verdict_markdown(found_again.verdict) == report.verdict_markdown(found.verdict)
    (ours, mismatch), (theirs, mismatch_again) = found.verdict.first, found_again.verdict.first
    assert (ours.mismatches, ours.figures, ours.scale, mismatch) == (
        theirs.mismatches, theirs.figures, theirs.scale, mismatch_again,
    )  # fmt: skip
    assert (found.divergence_map.rows, found.divergence_map.first) == (
        found_again.divergence_map.rows,
        found_again.divergence_map.first,
    )
    for phase in Phase:
        assert np.array_equal(found.divergence_map.map(phase), found_again.divergence_map.map(phase), equal_nan=True)


def test_the_evidence_counts_as_it_goes():
    evidence = report.StepCounts()
    for norm, clipped, lr, skipped in ((2, 1, 0.1, False), (1, 1, 0.2, False), (9, 1, 0.2, True), (3, 1, 0.1, False)):
        evidence.add(report.StepMetrics(0.0, norm, clipped, 1.0, lr, skipped))
    assert str(evidence) == (
        "Of 4 steps, 2 clipped the gradient and 1 was skipped because it overflowed; 3 different learning rates."
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with a checkpoint, and its configuration."""
    folder = tmp_path_factory.mktemp("kept")
    config = replace(FP16, task="digits_mlp")
    lanes = build.lanes(config, small_task(config.task))
    Board(folder, "mlp", Verdict()).__exit__(None, None, None)
    found, _ = trained(config, lanes, steps=HALF)
    save_progress(folder, config, lanes, found)
    return folder, config


def refused(folder, config):
    """What is said, and that the board's files have been left alone."""
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.raises(UserError) as error:
        resume_progress(folder, config, build.lanes(config, small_task(config.task)))
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("; move it away to train from the first step")
    return str(error.value)


def spoiled(kept, folder, change):
    shutil.copytree(kept[0], folder, dirs_exist_ok=True)
    (folder / CHECKPOINT).write_bytes(change((folder / CHECKPOINT).read_bytes()))
    return folder, kept[1]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_torn_checkpoint_is_refused(kept, share, tmp_path):
    assert "is not a whole checkpoint of this training (" in refused(
        *spoiled(kept, tmp_path, lambda data: data[: int(share * len(data))])
    )


def compressed(data):
    """The same members, of which a few bytes might be gigabytes."""
    file = BytesIO()
    with ZipFile(BytesIO(data)) as stored, ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
    return file.getvalue()


def test_a_compressed_checkpoint_is_refused(kept, tmp_path):
    assert "it is compressed, and a checkpoint never is" in refused(*spoiled(kept, tmp_path, compressed))


def test_a_pipe_in_its_place_is_refused_at_once(kept, tmp_path):
    shutil.copytree(kept[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / CHECKPOINT).unlink()
    os.mkfifo(tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match="it is no regular file"):
        resume_progress(tmp_path, kept[1], build.lanes(kept[1], small_task(kept[1].task)))


def test_every_byte_counts_or_says_nothing(kept, tmp_path):
    """Of a flipped byte the checksums know, unless nobody reads it, as the date of an archive's member."""
    whole = (kept[0] / CHECKPOINT).read_bytes()
    with ZipFile(kept[0] / CHECKPOINT) as archive:
        members = {name: archive.read(name) for name in (*LANES, PROGRESS)}
    chance, noticed = random.Random(0), 0
    for place in [*chance.sample(range(len(whole)), 300), *range(len(whole) - 250, len(whole))]:
        flipped = whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :]
        try:
            with ZipFile(BytesIO(flipped)) as archive:
                assert {name: archive.read(name) for name in (*LANES, PROGRESS)} == members
        except Exception:
            noticed += 1
            if noticed % 60 == 0:
                refused(*spoiled(kept, tmp_path, lambda _, flipped=flipped: flipped))
    assert noticed > 300


def test_a_checkpoint_from_a_different_training_is_refused(kept, tmp_path):
    folder, config = kept
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    assert "is from a training with different optimizer, seed; move it away" in refused(
        tmp_path, replace(config, seed=1, optimizer=replace(config.optimizer, lr=0.5))
    )
    assert resume_progress(
        tmp_path, replace(config, checkpoint_every=3, evaluate_every=1), build.lanes(config, small_task("digits_mlp"))
    )


def test_a_run_without_its_checkpoint_does_not_start_again(kept, tmp_path):
    folder, config = kept
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / CHECKPOINT).unlink()
    (tmp_path / FIGURES_FILE).write_text(f'{{"step": {HALF - 1}}}\n')
    files = file_lengths(tmp_path)
    with pytest.raises(UserError, match=r"checkpoint.zip is missing; bring it back, or train again in a new folder"):
        resume_progress(tmp_path, replace(config, checkpoint_every=HALF - 1), [])
    assert file_lengths(tmp_path) == files
    assert resume_progress(tmp_path, replace(config, checkpoint_every=HALF), []).done == 0, (
        "it was killed before the first"
    )
    assert file_lengths(tmp_path) == {}


def test_a_checkpoint_of_a_different_version_is_refused(kept, tmp_path, monkeypatch):
    shutil.copytree(kept[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(
        checkpoint,
        "CHECKPOINT_CLASSES",
        (*checkpoint.CHECKPOINT_CLASSES, make_dataclass("Verdict", ["steps", "one_more"])),
    )
    assert "(it was written by a different version of gradparity)" in refused(tmp_path, kept[1])


def packed(folder, change):
    """The checkpoint in ``folder`` with members that were changed and their checksums as they should be."""
    with ZipFile(folder / CHECKPOINT) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with ZipFile(folder / CHECKPOINT, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def saved(thing):
    file = BytesIO()
    torch.save(thing, file)
    return file.getvalue()


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.pop(LANES[1]),
        lambda members: members.update({LANES[0]: saved({})}),
        lambda members: members.update({LANES[0]: saved([1, 2])}),
        lambda members: members.update({LANES[0]: saved(Code())}),
        lambda members: members.update({PROGRESS: saved(Code())}),
        lambda members: members.update({PROGRESS: b"text"}),
        lambda members: members.update({PROGRESS: saved({"bits": {}, "progress": None, "lengths": {}})}),
        lambda members: members.update({PROGRESS: progress(-1)}),
        lambda members: members.update({PROGRESS: progress(STEPS + 1)}),
        lambda members: members.update({PROGRESS: progress("x")}),
        lambda members: members.update({PROGRESS: progress(HALF)}),
        lambda members: members.update({PROGRESS: progress(HALF, lengths=3)}),
        lambda members: members.update({LANES[0]: other_model(members[LANES[0]])}),
    ],
)
def test_a_manipulated_checkpoint_is_refused_and_runs_no_code(kept, change, tmp_path, monkeypatch):
    shutil.copytree(kept[0], tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    packed(tmp_path / "run", change)
    refused(tmp_path / "run", kept[1])
    assert not (tmp_path / "ran").exists()


def test_unpickled_without_care_the_code_would_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.load(BytesIO(saved(Code())), weights_only=False)
    assert (tmp_path / "ran").exists()


def progress(done, lengths=()):
    found = Progress(done, Verdict(), DivergenceMap([]) if lengths else None)
    bits = checkpoint.fields_that_change_bits(replace(FP16, task="digits_mlp"))
    return saved({"form": checkpoint.class_fields(), "bits": bits, "progress": found, "lengths": lengths or {}})


def other_model(data):
    state = torch.load(BytesIO(data), weights_only=True)
    state["model"]["1.weight"] = torch.zeros(3, 3)
    return saved(state)


def test_the_bits_of_a_training_are_all_of_its_configuration_but_where_and_how_often_it_is_looked_at(kept):
    bits = checkpoint.fields_that_change_bits(kept[1])
    assert asdict(kept[1]).keys() - bits.keys() == {"output", "quiet", "evaluate_every", "checkpoint_every"}
    assert json.loads(json.dumps(bits)) == bits, "plain values, and so equal when they come back"


def test_windows_are_passed_over():
    config = replace(FP16, steps=STEPS)
    whole = list(build.windows(config, small_task("digits_cnn")))
    rest = list(build.windows(config, small_task("digits_cnn"), HALF))
    assert len(whole) == STEPS
    assert len(rest) == STEPS - HALF
    for ours, theirs in zip(whole[HALF:], rest, strict=True):
        assert ours.normalizer == theirs.normalizer
        assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(ours.microbatches, theirs.microbatches, strict=True))
