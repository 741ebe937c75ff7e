"""Validation and a resume leave no mark on a training; each thing left out of a checkpoint does."""

import copy
import errno
import os
import random
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from gradparity.faults.stress_scenario import build, run_of
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


class Drawing(torch.utils.data.Dataset):
    """Examples that a program augments with the random numbers of Python and NumPy."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return random.random() + np.random.rand() + index


def streams():
    return (
        random.getstate(),
        (np.random.get_state()[1].tolist(), np.random.get_state()[2:]),
        torch.get_rng_state().tolist(),
    )


def test_a_data_loader_that_is_validated_on_draws_no_random_number_of_the_training():
    _, run = start()
    run = replace(run, loss=lambda _, batch: batch.sum() + torch.rand(()))
    held_out = DataLoader(Drawing(), batch_size=2, shuffle=True)
    before = streams()
    validate(run, held_out, len)
    assert streams() == before
    assert [*held_out], "which alone does draw"
    assert all(a != b for a, b in zip(streams(), before, strict=True))


def test_a_loss_that_raises_in_validation_leaves_every_module_in_its_mode():
    cast, run = start()
    run.model.norm.eval()
    modes, before = [module.training for module in run.model.modules()], streams()

    def loss(model, batch):
        torch.rand(())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        validate(replace(run, loss=loss), cast.plan.held_out, cast.plan.count)
    assert [module.training for module in run.model.modules()] == modes
    assert streams() == before


@pytest.mark.parametrize("held_out", [[], [None]])
def test_nothing_to_validate_on_is_one_sentence(held_out):
    _, run = start()
    with pytest.raises(ValueError, match="held_out holds no sample or token"):
        validate(replace(run, loss=lambda *_: torch.zeros(())), held_out, lambda _: 0)
    assert run.model.training


@pytest.mark.parametrize("which", ["batches", "held_out"])
def test_an_iterator_is_refused_before_an_epoch_finds_it_empty(which):
    cast, run = start()
    cast = replace(cast, plan=replace(cast.plan, held_out=iter(cast.plan.held_out))) if which == "held_out" else cast
    cast = replace(cast, batches=iter(cast.batches)) if which == "batches" else cast
    before = copy.deepcopy(run.model.state_dict())
    with pytest.raises(ValueError, match="an iterator is at its end after one epoch"):
        epochs(cast, run, range(2))
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())
    epochs(cast, run, range(1))


def test_training_is_in_train_mode_whatever_mode_the_model_comes_in():
    cast, run = start()
    losses = epochs(cast, run, range(1))
    cast, run = start()
    run.model.eval()
    assert epochs(cast, run, range(1)) == losses
    assert all(module.training for module in run.model.modules())


class Shuffled(torch.utils.data.Sampler):
    """Notes the epochs that it is told, as a DistributedSampler shuffles by them."""

    def __init__(self, inner=None):
        self.inner, self.told, self.batch_size = inner, [], 1

    def __iter__(self):
        return iter([[0]] if self.inner else [0])

    def __len__(self):
        return 1

    def set_epoch(self, epoch):
        self.told.append(epoch)


class Told(Drawing, Shuffled):
    """A dataset that shuffles itself."""

    def __init__(self):
        Shuffled.__init__(self)

    __len__ = Drawing.__len__


class Loader(list):
    set_epoch = Shuffled.set_epoch
    told: list[int]


def loaders():
    """Each with whatever in it is to be told the epoch."""
    data, sampler = Drawing(), Shuffled()
    yield DataLoader(data, sampler=sampler), sampler
    sampler = Shuffled()
    yield DataLoader(data, batch_sampler=BatchSampler(sampler, 1, False)), sampler
    sampler = Shuffled(inner=True)
    yield DataLoader(data, batch_sampler=sampler), sampler
    yield DataLoader(told := Told()), told
    (own := Loader([torch.ones(1)])).told = []
    yield own, own


@pytest.mark.parametrize(("batches", "told"), list(loaders()))
def test_whatever_shuffles_by_the_epoch_is_told_it(batches, told):
    _, run = start()
    run = replace(run, loss=lambda model, _: model.shift[0].sum(), scaler=torch.amp.GradScaler("cpu", enabled=False))
    train(run, batches, [torch.ones(1)], epochs=range(3, 5), accumulation_steps=1, count=len, checkpoint=BytesIO())
    assert list(dict.fromkeys(told.told)) == [3, 4]


def test_a_distributed_sampler_has_another_order_in_the_next_epoch():
    _, run = start()
    seen = []

    def loss(model, batch):
        seen.append(int(batch))
        return model.shift[0].sum()

    run = replace(run, loss=loss, scaler=torch.amp.GradScaler("cpu", enabled=False))
    data = torch.arange(40)
    batches = DataLoader(data, sampler=DistributedSampler(data, num_replicas=2, rank=0))
    train(run, batches, [data[:1]], epochs=range(2), accumulation_steps=1, count=len, checkpoint=BytesIO())
    first, second = seen[:20], seen[21:41]
    assert first != second
    assert len(set(first)) == 20


def test_the_number_of_finished_epochs_comes_back():
    cast, run = start()
    file = BytesIO()
    save(run, file)
    assert resume(run, file) == 0
    epochs(cast, run, range(2), file)
    assert resume(run, file) == 2


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
    assert path.read_bytes() == before


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
