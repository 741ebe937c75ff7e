"""Traces from anybody: each is compared, or refused in a sentence; none leads out of its folder, hangs, or runs code."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.optim import SGD

import gradparity
from gradparity.cli.exit_codes import exit_codes
from gradparity.cli.main import main
from gradparity.errors import UserError
from gradparity.parity.state import Part
from gradparity.trace.events import Event
from gradparity.trace.line_format import about_in, forms_in, parsed, record_in
from gradparity.trace.trace_file import MOST_OF_A_LINE, MOST_TRACE_BYTES, TRACE_FILE, read, tensor_of
from hostile import KINDS, TEXTS, VALUES, cases, one_sentence, put_in_place_of, spoiled, spoiled_bytes


def record(folder, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Embedding(4, 2, sparse=True))
    optimizer = SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with gradparity.record(model, optimizer, folder, full=True):
        for _ in range(2):
            seen = model[2](torch.randint(4, (5,))) * model[1](model[0](torch.randn(5, 3)))
            scaler.scale(seen.sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reference, a candidate that differs from it, and a copy of the candidate to be spoiled."""
    folder = tmp_path_factory.mktemp("traces")
    record(folder / "reference", seed=1)
    record(folder / "candidate", seed=2)
    shutil.copytree(folder / "candidate", folder / "spoiled")
    return folder


def lines_of(folder):
    return (folder / "candidate" / TRACE_FILE).read_bytes().splitlines()


def compared(folder, *more, **limits):
    """What ``gradparity diff`` says, in both orders and both formats."""
    two = [str(folder / "reference"), str(folder / "spoiled")]
    told = one_sentence(lambda: main(["diff", *two, *more]), **limits)
    other = one_sentence(lambda: main(["diff", *reversed(two), "--format", "json"]), **limits)
    assert told.code == other.code
    if other.code != 2:
        json.loads(other.out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    return told


def spoil(folder, data):
    (folder / "spoiled" / TRACE_FILE).write_bytes(data)


def test_what_was_not_spoiled_differs(folder):
    spoil(folder, (folder / "candidate" / TRACE_FILE).read_bytes())
    assert compared(folder).code == 1
    assert one_sentence(lambda: main(["diff", str(folder / "candidate"), str(folder / "spoiled")])).code == 0


@exit_codes("read")
def reading(folder):
    read(folder)
    return 0


@cases(100)
@given(data=st.data())
def test_what_is_spoiled_is_read_or_refused(folder, data):
    lines = lines_of(folder)
    if data.draw(st.booleans()):
        number = data.draw(st.integers(0, len(lines) - 1))
        lines[number] = json.dumps(data.draw(spoiled(json.loads(lines[number])))).encode()
        spoil(folder, b"\n".join(lines) + b"\n")
    else:
        spoil(folder, data.draw(spoiled_bytes(b"\n".join(lines) + b"\n")))
    one_sentence(lambda: reading(folder / "spoiled"))
    one_sentence(lambda: main(["show", str(folder / "spoiled")]))


@cases(12, share=0.05)
@given(data=st.data())
def test_a_line_may_hold_anything(folder, data):
    lines = lines_of(folder)
    number = data.draw(st.integers(0, len(lines) - 1))
    lines[number] = json.dumps(data.draw(spoiled(json.loads(lines[number])))).encode()
    spoil(folder, b"\n".join(lines) + b"\n")
    compared(folder)


@cases(8, share=0.05)
@given(data=st.data())
def test_lines_may_be_in_any_order_left_out_and_doubled(folder, data):
    lines = lines_of(folder)
    spoil(
        folder,
        b"\n".join(data.draw(st.lists(st.sampled_from(lines), max_size=30).map(lambda some: lines[:2] + some))) + b"\n",
    )
    compared(folder)


@cases(8, share=0.05)
@given(data=st.data())
def test_a_file_may_be_spoiled_anywhere(folder, data):
    spoil(folder, data.draw(spoiled_bytes((folder / "candidate" / TRACE_FILE).read_bytes())))
    compared(folder)


@cases(6, share=0.1)
@given(content=VALUES, text=TEXTS)
def test_a_file_may_hold_anything(folder, content, text):
    try:
        spoil(folder, json.dumps(content).encode() + b"\n" + text.encode("utf-8", "surrogatepass") + b"\n")
    except ValueError:  # an integer with more digits than Python prints
        return
    assert compared(folder).code == 2


@cases(4, share=0.02)
@given(data=st.data())
def test_tensors_beside_a_trace_may_be_spoiled(folder, data):
    spoil(folder, (folder / "candidate" / TRACE_FILE).read_bytes())
    name = data.draw(st.sampled_from(sorted(path.name for path in (folder / "candidate").glob("*.safetensors"))))
    (folder / "spoiled" / name).write_bytes(data.draw(spoiled_bytes((folder / "candidate" / name).read_bytes())))
    try:
        assert compared(folder).code == 1
    finally:
        shutil.copyfile(folder / "candidate" / name, folder / "spoiled" / name)


@cases(1, share=0.002)
@given(data=st.data())
def test_whatever_can_be_compared_can_be_drawn(folder, tmp_path_factory, data):
    test_a_line_may_hold_anything.hypothesis.inner_test(folder, data)
    compared(folder, "--tensorboard", str(tmp_path_factory.mktemp("board") / "new"))


def test_names_of_every_kind_can_be_drawn(folder, tmp_path):
    names = json.dumps(["$\\frac$", "\x1b[31m", "界" * 400, "\ud800", "$$"])[1:-1].split(", ")
    text = b"\n".join(lines_of(folder)).decode() + "\n"
    for name, hostile in zip(["0.weight", "0.bias", "1.weight", "1.bias", "2.weight"], names, strict=True):
        text = text.replace(f'"{name}"', hostile)
    spoil(folder, text.encode())
    told = compared(folder, "--tensorboard", str(tmp_path / "board"))
    assert told.code == 1
    assert "\\ud800" in str(read(folder / "spoiled").records)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_place_of_a_trace_is_refused(folder, kind, tmp_path):
    (tmp_path / "spoiled").mkdir()
    (tmp_path / "reference").symlink_to(folder / "reference")
    put_in_place_of(tmp_path / "spoiled" / TRACE_FILE, kind)
    assert compared(tmp_path).code == 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_place_of_tensors_is_no_tensor(folder, kind, tmp_path):
    shutil.copytree(folder / "candidate", tmp_path / "spoiled")
    shutil.copytree(folder / "reference", tmp_path / "reference")
    told = compared(tmp_path)
    for path in (tmp_path / "spoiled").glob("*.safetensors"):
        put_in_place_of(path, kind)
    spoiled_told = compared(tmp_path)
    assert told.code == spoiled_told.code == 1
    assert "ULP apart" in told.out
    assert "ULP apart" not in spoiled_told.out


def test_other_tensors_are_not_those_of_the_record(folder, tmp_path):
    shutil.copytree(folder / "candidate", tmp_path / "spoiled")
    shutil.copytree(folder / "reference", tmp_path / "reference")
    assert "ULP apart" in compared(tmp_path).out
    for spoiled_one in (torch.ones(7), torch.ones(())):  # the loss has the shape of the second
        for path in (tmp_path / "spoiled").glob("*.safetensors"):
            save_file(
                {key: spoiled_one.clone() for key in ("gradients/0.weight", "parameters/0.weight", "loss/loss")}, path
            )
        assert "ULP apart" not in compared(tmp_path).out


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a/b", "a\0b", "", "."])
def test_no_file_outside_the_folder_is_read(folder, tmp_path, name):
    shutil.copytree(folder / "candidate", tmp_path / "trace" / "inside")
    original = read(tmp_path / "trace" / "inside")
    ready = next(r for r in original.records if r.event == Event.READY)
    assert tensor_of(original, ready, Part.GRADIENTS, "0.weight") is not None
    shutil.copyfile(tmp_path / "trace" / "inside" / ready.tensors, tmp_path / "trace" / "secret")
    lines = (tmp_path / "trace" / "inside" / TRACE_FILE).read_text()
    (tmp_path / "trace" / "inside" / TRACE_FILE).write_text(lines.replace(json.dumps(ready.tensors), json.dumps(name)))
    try:
        trace = read(tmp_path / "trace" / "inside")
    except UserError:
        return
    assert all(tensor_of(trace, r, Part.GRADIENTS, "0.weight") is None for r in trace.records if r.tensors == name)


@pytest.mark.parametrize("names", [["rank0x"], ["rank0_1"], ["rank1²"], ["rank01", "rank1"], ["rank1"], ["rank" + "9" * 200], ["rank"], ["rank-1"]])  # fmt: skip
def test_folders_that_are_only_called_as_if_they_were_of_ranks(folder, names, tmp_path):
    for name in names:
        shutil.copytree(folder / "candidate", tmp_path / "spoiled" / name)
    (tmp_path / "reference").symlink_to(folder / "reference")
    assert compared(tmp_path).code == 2


def test_a_line_without_end_and_a_trace_without_end_are_refused(folder):
    with (folder / "spoiled" / TRACE_FILE).open("wb") as file:
        file.write(b'{"about": {"format": 1, "a": "' + b"a" * MOST_OF_A_LINE)
    assert compared(folder).code == 2
    os.truncate(folder / "spoiled" / TRACE_FILE, MOST_TRACE_BYTES + 1)
    assert "it is larger than" in compared(folder).err


DENSE = [b'{"form": [' + b"[]," * 10**4 * 3 + b"[]]}", b"[" + b"{}," * 10**4 * 3 + b"{}]", b'{"about": {' + b",".join(b'"%d":1' % n for n in range(10**4 * 3)) + b"}}"]  # fmt: skip


@pytest.mark.parametrize("line", DENSE)
def test_memory_stays_within_some_times_the_size_of_a_file(folder, line):
    spoil(folder, b"\n".join([*lines_of(folder), line]) + b"\n")
    tracemalloc.start()
    compared(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * (folder / "spoiled" / TRACE_FILE).stat().st_size


def test_a_long_trace_is_compared_in_a_time_like_its_length(folder):
    about, *lines = lines_of(folder)
    form = [line for line in lines if b'"form": [' in line]
    step = next(line for line in lines if b'"event": "step"' in line)
    many = [step.replace(b'"step": 0', b'"step": %d' % n) for n in range(4000)]
    assert len(set(many)) == 4000
    spoil(folder, b"\n".join([about, *form, *many]) + b"\n")
    assert compared(folder).code == 1


def evaluated(text):
    """A reader as somebody might have written it."""
    return eval(text)


def test_reading_runs_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = b'__import__("pathlib").Path("marker").touch()'
    spoil(folder, code + b"\n")
    assert compared(folder).code == 2
    assert not Path("marker").exists()
    evaluated(code)
    assert Path("marker").exists()


@cases(50)
@given(said=VALUES)
def test_a_line_is_decoded_or_refused_with_a_value_or_key_error(said):
    for decode in (
        about_in,
        forms_in,
        lambda said: record_in(said, []),
        lambda said: parsed(json.dumps(said).encode()),
    ):
        try:
            decode(said)
        except (ValueError, KeyError):
            pass
        except (TypeError, AttributeError):
            assert not isinstance(said, dict), "which is all that is ever given to it"
