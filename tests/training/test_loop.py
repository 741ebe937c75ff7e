"""Validation and a resume leave no mark on a training; each thing left out of a checkpoint does."""

import errno
import os
from io import BytesIO

import pytest
import torch

from gradparity.faults.stress import build, run_of
from gradparity.training import resume, save, train, validate
from gradparity.training.checkpoint import written_over
from gradparity.training.step import Run


def start():
    torch.manual_seed(0)
    cast = build("fp16")
    plan = cast.plan
    run = run_of(cast.model, cast.optimizer, cast.loss, cast.scaler, cast.scheduler, plan.autocast, plan.max_norm)
    return cast, run


def epochs(cast, run: Run, numbers: range, checkpoint=None):
    return train(
        run, cast.batches, cast.plan.held_out, epochs=numbers, accumulation_steps=3, count=cast.plan.count,
        checkpoint=checkpoint or BytesIO(),
    )  # fmt: skip


def test_two_epochs_are_the_same_bits_with_and_without_a_new_start_in_between():
    cast, straight = start()
    losses = epochs(cast, straight, range(2))

    first_file, file = BytesIO(), BytesIO()
    cast, run = start()
    before = epochs(cast, run, range(1), file)
    cast, again = start()  # as a new process would build it
    torch.manual_seed(1)
    resume(again, file)
    after = epochs(cast, again, range(1, 2), first_file)
    assert before + after == losses
    ours, theirs = straight.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert straight.scaler.state_dict() == again.scaler.state_dict()
    assert straight.scheduler.state_dict() == again.scheduler.state_dict()


def test_the_validation_loss_is_a_mean_over_tokens_in_eval_mode_and_leaves_no_mark():
    cast, run = start()
    run.model.norm.eval()
    modes = [module.training for module in run.model.modules()]
    buffers = [buffer.clone() for buffer in run.model.buffers()]
    random = torch.get_rng_state()
    loss = validate(run, cast.plan.held_out, cast.plan.count)
    assert [module.training for module in run.model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(buffers, run.model.buffers(), strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    run.model.eval()
    with torch.no_grad(), run.autocast():
        sums = [float(run.loss(run.model, batch)) for batch in cast.plan.held_out]
    assert loss == pytest.approx(sum(sums) / sum(map(cast.plan.count, cast.plan.held_out)), rel=1e-12)


def test_a_shorter_checkpoint_replaces_a_longer_one():
    _, run = start()
    file = BytesIO(b"x" * 10_000_000)
    save(run, file)
    assert len(file.getvalue()) < 1_000_000
    resume(run, file)


def test_a_path_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    _, run = start()
    path = tmp_path / "checkpoint.pt"
    save(run, path)
    before = path.read_bytes()
    resume(run, path)

    def full_disk(state, file):
        file.write(before[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(run, path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path], "what was written of the new one takes no room"

    with path.open("r+b") as file, pytest.raises(OSError, match="No space"):
        save(run, file)  # in place
    assert path.read_bytes() == before[:1000]


def test_a_path_leads_to_the_old_checkpoint_until_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(("synced", path.read_bytes())))
    path = tmp_path / "checkpoint"
    path.write_bytes(b"old")
    with written_over(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert seen == [("synced", b"old")]
    assert path.read_bytes() == b"new"
