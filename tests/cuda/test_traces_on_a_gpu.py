"""A loop on a GPU, recorded: the trace holds what was there at each event, and the loop never waits for it."""

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW

from gradparity import assert_parity, audit, record
from gradparity.parity.bits import same_bits
from gradparity.parity.state import Part
from gradparity.trace.digest import Hash, digest_by
from gradparity.trace.events import Event
from gradparity.trace.late_fingerprints import fingerprint
from gradparity.trace.report import TraceOutcome, trace_difference
from gradparity.trace.to_cpu import copy_to_cpu, fingerprints
from gradparity.trace.trace_file import read, tensor_of
from gradparity.training import Phase

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("on_a_gpu")]


def make():
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 4)).cuda()
    optimizer = AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(6, 8, generator=generator).cuda() for _ in range(6)]
    return model, optimizer, batches, GradScaler("cuda", init_scale=1024.0)


def loop(model, optimizer, batches, scaler, max_norm=0.05):
    for index, batch in enumerate(batches):
        with torch.autocast("cuda", torch.float16):
            loss = model(batch).square().mean() / 3
        scaler.scale(loss).backward()
        if index % 3 == 2:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()


def other_threshold(*cast):
    loop(*cast, max_norm=0.06)


def by_hand(model, optimizer, batches, scaler):
    for index, batch in enumerate(batches):
        with torch.autocast("cuda", torch.float16):
            loss = model(batch).square().mean() / 3
        for p, g in zip(model.parameters(), torch.autograd.grad(scaler.scale(loss), model.parameters()), strict=True):
            p.grad = g if p.grad is None else p.grad.add_(g)
        if index % 3 == 2:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()


def test_a_loop_by_hand_is_the_loop_with_backward():
    assert_parity(loop, by_hand, make)


def test_another_threshold_is_told():
    with pytest.raises(AssertionError, match="At step 0, phase clipped, the gradient of"):
        assert_parity(loop, other_threshold, make)


def test_a_trace_holds_the_gpus_random_stream_name_and_tensors(tmp_path):
    model, optimizer, *others = make()
    with record(model, optimizer, tmp_path / "trace", full=True):
        loop(model, optimizer, *others)
    trace = read(tmp_path / "trace")
    assert trace.about["gpu"] == torch.cuda.get_device_name()
    forwards = [r for r in trace.records if r.event == Event.FORWARD]
    assert len({r.parts[Part.RNG]["cuda"].digest for r in forwards}) == len(forwards), "each draws a mask"
    kept = tensor_of(trace, trace.records[-1], Part.PARAMETERS, "0.weight")
    assert torch.equal(kept, model[0].weight.cpu())


def test_what_comes_to_the_host_is_what_was_on_the_gpu():
    x = torch.randn(4, 6, device="cuda")
    for tensor in (x, x.t(), x[:, ::2], x[0].expand(3, 6), x.half(), x > 0, x[:0], x.sum(), x.to_sparse()):
        copy = copy_to_cpu(tensor)
        torch.cuda.synchronize()
        assert copy.is_cpu
        one, other = fingerprint(copy), fingerprint(tensor)
        assert one[:4] == other[:4]
        assert other.digest == (digest_by(other.by, copy) if other.layout == "dense" else other.digest)


def test_an_event_with_many_tensors_is_waited_for_once(waits):
    seen = {Part.GRADIENTS: {f"p{i}": torch.full((100,), float(i), device="cuda") for i in range(50)}}
    fingerprints(seen)
    with waits() as told:
        here = fingerprints(seen)
    assert len(told) <= 1
    assert here[Part.GRADIENTS] == {name: fingerprint(tensor) for name, tensor in seen[Part.GRADIENTS].items()}


def plain_loop(model, optimizer, batches, scaler=None, changed_at=None):
    """Without a scaler: it waits for the GPU by itself."""
    for index, batch in enumerate(batches):
        model(batch).square().mean().backward()
        if index % 3 == 2:
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            optimizer.step()
            optimizer.zero_grad()
        if index == changed_at:
            with torch.no_grad():
                first = model[0].weight.view(-1)[:1]
                first.copy_(torch.nextafter(first, first + 1))


def recorded(folder, **others):
    torch.manual_seed(0)
    model, optimizer, batches, _ = make()
    with record(model, optimizer, folder):
        plain_loop(model, optimizer, batches, **others)
    return model, read(folder)


def test_a_recorded_loop_waits_no_more_than_an_unrecorded_one(waits, tmp_path):
    recorded(tmp_path / "first")
    model, optimizer, batches, _ = make()
    with waits() as alone:
        plain_loop(model, optimizer, batches)
    with record(model, optimizer, tmp_path / "trace"), waits() as told:
        plain_loop(model, optimizer, batches)
    assert told == alone


def test_a_recording_changes_no_bit_and_hashes_on_the_gpu(tmp_path):
    model, trace = recorded(tmp_path / "trace")
    torch.manual_seed(0)
    alone, optimizer, batches, _ = make()
    plain_loop(alone, optimizer, batches)
    assert all(same_bits(p, q) for p, q in zip(model.parameters(), alone.parameters(), strict=True))
    last = trace.records[-1].parts[Part.PARAMETERS]["0.weight"]
    assert (trace.complete, last.by) == (True, Hash.SUMS)
    assert last.digest == digest_by(Hash.SUMS, alone[0].weight.detach().cpu())


def test_one_ulp_is_found_at_its_event(tmp_path):
    _, ours = recorded(tmp_path / "ours")
    _, again = recorded(tmp_path / "again")
    _, theirs = recorded(tmp_path / "theirs", changed_at=2)
    assert trace_difference(ours, again).outcome == TraceOutcome.IDENTICAL
    comparison, mismatch = trace_difference(ours, theirs).verdict.first
    assert (comparison.place.step, mismatch.part, mismatch.name) == (1, Part.PARAMETERS, "0.weight")
    assert comparison.place.phase == Phase.FORWARD


def test_an_audited_step_is_looked_at_with_few_waits(waits, tmp_path):
    model, optimizer, batches, _ = make()
    with audit(model, optimizer):
        plain_loop(model, optimizer, batches)
        with waits() as told:
            plain_loop(model, optimizer, batches[:3])
    assert len(told) < 60, told
