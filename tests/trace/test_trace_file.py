"""A trace on disk: what was written is read back, whatever the run came to; what is no trace is refused in a sentence."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.optim import SGD

import gradparity
from disk import no_file_longer_than
from gradparity.errors import UserError
from gradparity.parity.state import Part
from gradparity.trace.events import Event
from gradparity.trace.isolation import RecordingWarning
from gradparity.trace.report import sentences, trace_difference
from gradparity.trace.trace_file import TRACE_FILE, read, tensor_of
from watched import watching


def train(folder, steps=3, full=False, seed=1):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1, bias=False))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    with gradparity.record(model, optimizer, folder, full=full), watching(model, optimizer) as records:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(6, 4)).sum().backward()
            optimizer.step()
    return records


def test_a_trace_reads_back_as_it_was_written(tmp_path):
    records = train(tmp_path / "trace")
    trace = read(tmp_path / "trace")
    assert trace.complete
    assert len(trace.records) == len(records) > 10
    for ours, theirs in zip(records, trace.records, strict=True):
        assert (ours.event, ours.step, ours.microbatch) == (theirs.event, theirs.step, theirs.microbatch)
        assert ours.parts.keys() == theirs.parts.keys()
        for part, values in ours.parts.items():
            for name, value in values.items():
                other = theirs.parts[part][name]
                assert repr(other) == repr(value) or other[:5] == value[:5], "all but the norm, which is rounded"
                assert repr(other) == repr(value) or other.norm == pytest.approx(value.norm, rel=1e-5)


def test_a_trace_names_the_machine(tmp_path):
    train(tmp_path)
    assert read(tmp_path).about["torch"] == str(torch.__version__)
    assert read(tmp_path).about["threads"] == 1


def test_the_size_of_a_trace_does_not_depend_on_the_size_of_its_tensors(tmp_path):
    sizes = []
    for width in (8, 512):
        model = nn.Linear(width, width)
        optimizer = SGD(model.parameters(), lr=0.1)
        with gradparity.record(model, optimizer, tmp_path / str(width)):
            for _ in range(3):
                model(torch.ones(1, width)).sum().backward()
                optimizer.step()
        sizes.append((tmp_path / str(width) / TRACE_FILE).stat().st_size)
    assert sizes[1] < 1.05 * sizes[0]


def test_tensors_are_kept_when_asked_for(tmp_path):
    train(tmp_path / "full", full=True)
    train(tmp_path / "prints")
    full, prints = read(tmp_path / "full"), read(tmp_path / "prints")
    ready = next(r for r in full.records if r.event == Event.READY)
    assert tensor_of(full, ready, Part.GRADIENTS, "0.weight").shape == (4, 4)
    assert tensor_of(full, ready, Part.GRADIENTS, "nobody") is None
    assert all(r.tensors is None for r in prints.records)
    assert full.records[-1].parts == prints.records[-1].parts


def test_a_trace_is_never_overwritten(tmp_path):
    train(tmp_path)
    before = (tmp_path / TRACE_FILE).read_bytes()
    with pytest.raises(UserError, match="holds a trace already; choose another folder"):
        train(tmp_path)
    assert (tmp_path / TRACE_FILE).read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.* cannot be written .*; choose another folder"):
        train(tmp_path / "file" / "trace")


def test_a_trace_that_was_cut_anywhere_can_be_read_up_to_there(tmp_path):
    train(tmp_path / "whole")
    whole, text = read(tmp_path / "whole"), (tmp_path / "whole" / TRACE_FILE).read_bytes()
    (tmp_path / "cut").mkdir()
    lengths = [len(text) - 1, *range(text.index(b"\n") + 1, len(text), 97)]
    for length in lengths:
        (tmp_path / "cut" / TRACE_FILE).write_bytes(text[:length])
        cut = read(tmp_path / "cut")
        assert not cut.complete
        assert [r.event for r in cut.records] == [r.event for r in whole.records[: len(cut.records)]]
        lines = [line for line in text[:length].split(b"\n")[:-1] if b'"event"' in line]
        assert len(cut.records) == len(lines)


def test_a_killed_process_leaves_its_trace(tmp_path):
    script = (
        "import sys, torch, gradparity; torch.set_num_threads(1); m = torch.nn.Linear(4, 4); "
        "o = torch.optim.SGD(m.parameters(), lr=0.1); r = gradparity.record(m, o, sys.argv[1]); r.__enter__()\n"
        "while True:\n    m(torch.ones(1, 4)).sum().backward(); o.step(); print('.', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as process:
        for _ in range(20):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    trace = read(tmp_path)
    assert not trace.complete
    assert trace.records[-1].step >= 19


def lines_of(folder):
    train(folder)
    return (folder / TRACE_FILE).read_text().splitlines()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: ["", *lines],
        lambda lines: [lines[0], "[]", *lines[1:]],
        lambda lines: [lines[0], '{"event": "unheard"}', *lines[1:]],
        lambda lines: [lines[0], '{"event": "step"}', *lines[1:]],
        lambda lines: [lines[0], '{"event": "step", "step": 0, "parts": {"gradients": {"form": 9}}}', *lines[1:]],
        lambda lines: [lines[0], '{"event": "step", "step": 0, "parts": []}', *lines[1:]],
        lambda lines: [lines[0], '{"event": "step", "step": 0, "tensors": "../../secret"}', *lines[1:]],
        lambda lines: [lines[0], "[" * 100_000, *lines[1:]],
        lambda lines: [line.replace('"digests": "', '"digests": "0') for line in lines],
    ],
)
def test_a_line_that_is_not_of_a_trace_is_refused_by_its_number(tmp_path, spoil):
    lines = spoil(lines_of(tmp_path))
    (tmp_path / TRACE_FILE).write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"trace\.jsonl, line \d+, is not a line of a trace"):
        read(tmp_path)


def test_another_format_is_refused(tmp_path):
    lines = lines_of(tmp_path)
    about = json.loads(lines[0])
    about["about"]["format"] = 99
    (tmp_path / TRACE_FILE).write_text("\n".join([json.dumps(about), *lines[1:]]) + "\n")
    with pytest.raises(UserError, match="is not a trace of format 3"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"PK\x03\x04\xff\xff"])
def test_a_folder_without_a_trace_is_refused(tmp_path, content):
    (tmp_path / TRACE_FILE).write_bytes(content)
    with pytest.raises(UserError, match="is not a trace"):
        read(tmp_path)


def test_a_folder_without_a_trace_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read .*; name a folder that record\(\) has written"):
        read(tmp_path)


def test_a_missing_or_corrupted_tensor_file_gives_no_tensor(tmp_path):
    train(tmp_path, full=True)
    trace = read(tmp_path)
    ready = next(r for r in trace.records if r.event == Event.READY)
    (tmp_path / ready.tensors).write_bytes(b"\x80\x04\x95 pickle")
    assert tensor_of(trace, ready, Part.GRADIENTS, "0.weight") is None
    (tmp_path / ready.tensors).unlink()
    assert tensor_of(trace, ready, Part.GRADIENTS, "0.weight") is None


def test_a_trace_with_any_names_is_read_wherever_it_was_cut(tmp_path):
    """Names are escaped, so that no cut goes through a letter."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"größe_重": nn.Linear(2, 1)})
    optimizer = SGD(model.parameters(), lr=0.1)
    with gradparity.record(model, optimizer, tmp_path / "whole"):
        model["größe_重"](torch.ones(1, 2)).sum().backward()
        optimizer.step()
    whole, text = read(tmp_path / "whole"), (tmp_path / "whole" / TRACE_FILE).read_bytes()
    assert "größe_重.weight" in whole.records[-1].parts[Part.PARAMETERS]
    assert text.isascii()
    (tmp_path / "cut").mkdir()
    at = text.index(b"\\u")
    for length in range(at, at + 8):
        (tmp_path / "cut" / TRACE_FILE).write_bytes(text[:length])
        assert not read(tmp_path / "cut").complete


@pytest.mark.parametrize("full", [False, True])
def test_a_full_disk_ends_the_recording_with_a_sentence_and_not_the_training(full, tmp_path):
    ends = []
    for folder in (tmp_path / "with room", tmp_path / "without"):
        torch.manual_seed(0)
        model = nn.Linear(32, 32)
        optimizer = SGD(model.parameters(), lr=0.1)
        room = folder.name == "with room"
        with (
            nullcontext() if room else no_file_longer_than(4_000),
            nullcontext() if room else pytest.warns(RecordingWarning) as warned,
            gradparity.record(model, optimizer, folder, full=full),
        ):
            for _ in range(20):
                step(model, optimizer)
        ends.append(model.weight.detach().clone())
    assert torch.equal(*ends)
    file = folder / ("1.safetensors" if full else TRACE_FILE)
    (told,) = [str(w.message) for w in warned]
    assert told.startswith(
        f"the recording ends here, the training goes on: {file} cannot be written (File too large); make room"
    )
    trace = read(folder)
    assert not trace.complete
    assert trace.records
    assert 0 <= trace.records[-1].step < 19


def test_a_strict_recording_raises_at_the_end_of_its_block_if_it_lacks_something(tmp_path):
    model = nn.Linear(32, 32)
    optimizer, made = SGD(model.parameters(), lr=0.1), []

    def recorded():
        with no_file_longer_than(4_000), gradparity.record(model, optimizer, tmp_path, strict=True):
            made.extend(step(model, optimizer) for _ in range(20))

    told = r" cannot be written \(File too large\); make room"
    with pytest.raises(UserError, match=told):
        recorded()
    assert len(made) == 20


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(2, 32)).sum().backward()
    optimizer.step()


def test_tensor_files_that_cannot_be_read_are_reported(tmp_path):
    for name, seed in (("reference", 1), ("candidate", 2)):
        train(tmp_path / name, full=True, seed=seed)
    told = "\n".join(sentences(trace_difference(read(tmp_path / "reference"), read(tmp_path / "candidate"))))
    assert "cannot be read" not in told
    assert "ULP apart" in told
    files = sorted((tmp_path / "candidate").glob("*.safetensors"))
    files[0].unlink()
    for file in files[1:]:
        file.write_bytes(file.read_bytes()[:-1])
    told = "\n".join(sentences(trace_difference(read(tmp_path / "reference"), read(tmp_path / "candidate"))))
    assert f"Note: {len(files)} of the candidate's tensor files cannot be read; these tensors are" in told
    assert "of the reference's files" not in told
    assert "ULP apart" not in told


def test_a_recording_that_was_cut_off_is_reported(tmp_path):
    for name in ("reference", "candidate"):
        train(tmp_path / name)
    path = tmp_path / "candidate" / TRACE_FILE
    path.write_bytes(path.read_bytes()[:-10])
    told = "\n".join(sentences(trace_difference(read(tmp_path / "reference"), read(tmp_path / "candidate"))))
    assert "Note: the candidate's recording was cut off; it is compared as far as it goes." in told
    assert "the reference's" not in told
