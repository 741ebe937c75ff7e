"""A recording of tensors on a GPU, on the CPU: their hash is made by sums, and their digests come late."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers import slow_gpu as slow_gpus
from torch import nn
from torch.amp.grad_scaler import GradScaler

from gradparity import record
from gradparity.cli.main import main
from gradparity.parity.state import Part
from gradparity.trace import late_records, snapshot
from gradparity.trace.digest import Hash
from gradparity.trace.events import Event, Record
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.late_fingerprints import fingerprint, fingerprints_of
from gradparity.trace.late_hash import late_hash_of_all
from gradparity.trace.late_records import LateRecord, LateRecords
from gradparity.trace.report import TraceOutcome, sentences, trace_difference
from gradparity.trace.to_cpu import LateSnapshot
from gradparity.trace.trace_file import read, tensor_of
from gradparity.trace.until_difference import is_zero


@pytest.fixture
def hash_by_sums(monkeypatch):
    """Return a function after which tensors are hashed as those on a GPU are: all, or those of some shapes."""
    yield partial(slow_gpus.hash_by_sums, monkeypatch)
    slow_gpus.forget_arrangements()


@pytest.fixture
def as_on_a_gpu(hash_by_sums):
    """Hash every tensor as those on a GPU are."""
    hash_by_sums()


@pytest.fixture
def slow_gpu(monkeypatch):
    """A GPU whose digests are there when they are waited for, and not before."""
    yield slow_gpus.make_late(monkeypatch)
    slow_gpus.forget_arrangements()


def loop(model, optimizer, steps=3, threshold=1.0, error=None):
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for _ in range(2):
            model(torch.randn(4, 6, generator=generator)).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), threshold)
        optimizer.step()
        optimizer.zero_grad()
    if error is not None:
        raise error


def make():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def recorded(folder, full=False, **others):
    model, optimizer = make()
    with record(model, optimizer, folder, full=full):
        loop(model, optimizer, **others)
    return read(folder)


def weights(trace):
    return [r.parts[Part.PARAMETERS]["0.weight"] for r in trace.records if r.event == Event.STEP]


SOME = [torch.arange(6.0), torch.tensor(-2.5), torch.eye(3).to_sparse(), torch.zeros(0), torch.tensor([1 + 2j, 0])]


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_digest_says_by_which_hash_it_was_made():
    assert [one.by for one in fingerprints_of(SOME)] == [Hash.SUMS, Hash.XXH3, Hash.SUMS, Hash.SUMS, Hash.SUMS]
    assert late_hash_of_all(SOME) != late_hash_of_all(SOME[::-1])


def test_one_element_has_the_same_fingerprint_on_every_device(hash_by_sums):
    ones = [
        torch.tensor([x], dtype=d)
        for x in (-2.5, 0, 1)
        for d in (torch.float32, torch.bfloat16, torch.bool, torch.int64)
    ]
    here = fingerprints_of(ones)
    hash_by_sums()
    assert fingerprints_of(ones) == here
    assert here[0].norm == -2.5


def test_a_trace_says_by_which_hash_and_is_read_back(tmp_path, slow_gpu):
    trace = recorded(tmp_path / "trace")
    assert {value.by for value in weights(trace)} == {Hash.SUMS}
    (model, optimizer) = make()
    loop(model, optimizer)
    assert weights(trace)[-1] == fingerprint(model[0].weight)._replace(norm=weights(trace)[-1].norm)
    assert trace_difference(trace, recorded(tmp_path / "again")).parity
    other = trace_difference(trace, recorded(tmp_path / "other", threshold=0.05))
    assert "phase clipped" in "\n".join(sentences(other))


def test_a_recording_does_not_wait_and_what_it_writes_is_in_order(tmp_path, slow_gpu):
    model, optimizer = make()
    with record(model, optimizer, tmp_path / "trace"):
        loop(model, optimizer)
        assert not any(event.waits for event in slow_gpu)
        for event in slow_gpu:
            event.happened = True
    assert len(slow_gpu) > 12
    late = read(tmp_path / "trace")
    assert late.complete
    assert [r.event for r in late.records] == [r.event for r in recorded(tmp_path / "full", full=True).records]


def wired(model, optimizer, write, used=(True, True)):
    """A loop by ``autograd.grad``, whose gradients it writes to ``p.grad``, or only looks at."""
    generator, parameters = torch.Generator().manual_seed(0), list(model.parameters())
    for _ in range(3):
        for writes in used:
            loss = model(torch.randn(4, 6, generator=generator)).square().mean()
            gradients = torch.autograd.grad(loss, parameters)
            if writes:
                for p, g in zip(parameters, gradients, strict=True):
                    write(p, g)
        optimizer.step()
        optimizer.zero_grad()


def added(p, g):
    p.grad = g if p.grad is None else p.grad + g


def added_in_place(p, g):
    p.grad = g.clone() if p.grad is None else p.grad.add_(g)


def added_through_data(p, g):
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    p.grad.data.add_(g)


@pytest.mark.parametrize(("write", "waits"), [(added, False), (added_in_place, False), (added_through_data, True)])
def test_gradients_written_by_hand_are_seen_and_a_counted_write_needs_no_wait(write, waits, tmp_path, slow_gpu):
    model, optimizer = make()
    with record(model, optimizer, tmp_path):
        wired(model, optimizer, write)
        assert any(event.waits for event in slow_gpu) == waits
    assert [r.event for r in read(tmp_path).records].count(Event.ACCUMULATED) == 6


def test_gradients_that_a_loop_only_looks_at_are_no_microbatch(tmp_path, slow_gpu):
    model, optimizer = make()
    with record(model, optimizer, tmp_path):
        wired(model, optimizer, added, used=(True, False, True))
    assert [r.event for r in read(tmp_path).records].count(Event.ACCUMULATED) == 6


def test_values_are_those_of_the_moment_though_the_loop_has_gone_on(tmp_path, slow_gpu):
    late, at_once = recorded(tmp_path / "late"), recorded(tmp_path / "full", full=True)
    assert [r.parts for r in late.records] == [r.parts for r in at_once.records]
    assert len(set(weights(late))) == 3


def test_a_loop_that_raises_leaves_what_it_did(tmp_path, slow_gpu):
    model, optimizer = make()
    with pytest.raises(KeyError), record(model, optimizer, tmp_path / "trace"):
        loop(model, optimizer, error=KeyError())
    trace = read(tmp_path / "trace")
    assert (len(weights(trace)), trace.complete) == (3, False)


def test_an_error_of_the_gpu_ends_the_recording_and_not_the_training(tmp_path, slow_gpu, monkeypatch):
    def lost(self):
        raise RuntimeError("the GPU is lost")

    monkeypatch.setattr(slow_gpus.Written, "query", lost)
    model, optimizer = make()
    with (
        pytest.warns(UserWarning, match="the recording ends here, the training goes on: RuntimeError: the GPU is lost"),
        record(model, optimizer, tmp_path / "trace"),
    ):
        loop(model, optimizer)
    reference = make()
    loop(*reference)
    assert torch.equal(model[0].weight, reference[0][0].weight)


def record_of(event, tensor):
    return LateRecord(Record(Event.STEP, event), LateSnapshot({Part.PARAMETERS: {"w": tensor}}), {})


def test_no_more_records_wait_than_a_bound(slow_gpu, monkeypatch):
    monkeypatch.setattr(late_records, "MOST_LATE", 3)
    written = []
    records = LateRecords(lambda record, seen: written.append(record.step), late=True)
    for event in range(5):
        records.add(record_of(event, torch.ones(2)))
    assert (written, [event.waits for event in slow_gpu]) == ([0, 1], [1, 1, 0, 0, 0])
    slow_gpu[3].happened = True
    records.add(record_of(5, torch.ones(2)))
    assert written == [0, 1, 2, 3], "the third is waited for, the fourth is there"
    records.finish()
    assert written == [0, 1, 2, 3, 4, 5]


def test_after_a_failure_nothing_is_written_that_came_later(slow_gpu):
    written = []

    def write(record, seen):
        written.append(record.step)
        if record.step == 1:
            raise OSError("full")

    records = LateRecords(write, late=True)
    for event in range(4):
        records.add(record_of(event, torch.ones(2)))
    with pytest.raises(OSError, match="full"):
        records.finish()
    records.finish()
    assert written == [0, 1]


def test_two_kinds_of_digests_are_not_comparable_and_not_different(tmp_path, hash_by_sums, capsys):
    recorded(tmp_path / "cpu")
    hash_by_sums()
    recorded(tmp_path / "gpu")
    found = trace_difference(read(tmp_path / "cpu"), read(tmp_path / "gpu"))
    assert (found.outcome, found.parity, found.verdict.first) == (TraceOutcome.NOT_COMPARABLE, False, None)
    assert not found.updates.same
    assert sentences(found)[0] == (
        f"Not comparable: {found.not_comparable} values hashed on a GPU in one recording and on the CPU in the other; "
        "record both on the same kind of device."
    )
    assert main(["diff", str(tmp_path / "cpu"), str(tmp_path / "gpu")]) == 2
    assert main(["diff", str(tmp_path / "gpu"), str(tmp_path / "gpu")]) == 0
    capsys.readouterr()
    assert main(["diff", str(tmp_path / "cpu"), str(tmp_path / "gpu"), "--format", "json"]) == 2
    assert json.loads(capsys.readouterr().out)["outcome"] == "not comparable"


def test_what_can_be_compared_is_told_though_something_else_cannot(tmp_path, hash_by_sums):
    ours = recorded(tmp_path / "cpu")
    hash_by_sums(lambda shape: len(shape) == 1)
    theirs = recorded(tmp_path / "partly")
    assert trace_difference(ours, theirs).outcome == TraceOutcome.NOT_COMPARABLE
    first = theirs.records[0]
    changed = replace(
        first, parts={**first.parts, Part.LOSS: {"loss": first.parts[Part.LOSS]["loss"]._replace(digest="0" * 32)}}
    )
    other = trace_difference(ours, replace(theirs, records=[changed, *theirs.records[1:]]))
    assert other.outcome == TraceOutcome.DIFFERENT
    assert any(line.startswith("Note: not compared are ") for line in sentences(other))


def test_a_kept_tensor_is_found_by_its_digest(tmp_path, slow_gpu):
    trace = recorded(tmp_path / "full", full=True)
    last = trace.records[-1]
    assert last.parts[Part.PARAMETERS]["0.weight"].by == Hash.SUMS
    assert tensor_of(trace, last, Part.PARAMETERS, "0.weight").shape == (5, 6)
    other = last.parts[Part.PARAMETERS]["0.weight"]._replace(digest="0" * 32)
    changed = replace(last, parts={Part.PARAMETERS: {"0.weight": other}})
    assert tensor_of(trace, changed, Part.PARAMETERS, "0.weight") is None


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128])
def test_zeros_are_recognized(dtype):
    zeros = torch.zeros(5, 3, dtype=dtype)
    assert is_zero(fingerprint(zeros))
    zeros[2, 1] = 1
    assert not is_zero(fingerprint(zeros))


def test_digests_of_the_cpu_and_of_a_gpu_come_in_the_order_of_their_tensors(hash_by_sums):
    hash_by_sums(lambda shape: len(shape) == 2)
    tensors = [torch.full((i + 1,) * (1 + i % 2), float(i)) for i in range(5)]
    found = fingerprints_of(tensors)
    assert [one.by for one in found] == [Hash.XXH3, Hash.SUMS] * 2 + [Hash.XXH3]
    assert [one.norm for one in found] == pytest.approx([t.norm().item() for t in tensors])


def test_a_fingerprint_with_another_hash_is_another_one():
    one = Fingerprint("float32", (2,), (1,), "dense", "0" * 32, 0.0)
    assert one != one._replace(by=Hash.SUMS)


def test_the_numbers_of_a_scaler_on_a_gpu_are_recorded_as_numbers(slow_gpu, monkeypatch):
    scaler = GradScaler("cpu", init_scale=512.0)
    scaler.scale(torch.ones(()))
    expected = scaler.state_dict()
    monkeypatch.setattr(scaler, "_scale", OnAGpu(512.0))
    monkeypatch.setattr(scaler, "get_scale", None)
    seen = snapshot._state_of(scaler)
    assert [type(value) for value in seen.values()] == [OnAGpu, float, float, int, torch.Tensor]
    seen["scale"] = torch.tensor(512.0)
    found = LateSnapshot({Part.SCALER: seen}).get()[Part.SCALER]
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in expected.items()
    }


class OnAGpu:
    """A number that cannot be read without a wait."""

    is_cpu = False

    def __init__(self, number):
        self.number = number
