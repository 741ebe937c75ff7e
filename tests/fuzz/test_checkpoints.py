"""Checkpoints from anybody: one is loaded or it raises; none runs code, hangs, or takes more memory than there is."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradparity import training
from gradparity.training import checkpoint
from hostile import cases, limited, spoiled_bytes, watched
from small import small_config, small_lanes


def lane():
    return small_lanes(small_config(task="digits_mlp", precision="fp16"))[1]


def resumed(data, folder):
    """Go on from a file with ``data``, as somebody would who was given it; ``None``, or what was raised."""
    path = folder / "checkpoint.pt"
    path.write_bytes(data)
    with watched(120), limited(2), path.open("rb") as file:
        try:
            checkpoint.resume(lane().run, file)
        except Exception as error:
            return error
    return None


@pytest.fixture(scope="module")
def saved():
    file = io.BytesIO()
    checkpoint.save(lane().run, file)
    return file.getvalue()


def test_one_that_was_not_spoiled_is_loaded(saved, tmp_path):
    assert resumed(saved, tmp_path) is None


@cases(12, share=0.5)
@given(data=st.data())
def test_a_file_may_be_spoiled_anywhere(saved, tmp_path_factory, data):
    resumed(data.draw(spoiled_bytes(saved)), tmp_path_factory.getbasetemp())


@cases(12, share=0.5)
@given(data=st.data())
def test_its_pickle_may_be_spoiled_anywhere(saved, tmp_path_factory, data):
    """Inside the archive, with checksums that are right."""
    there, spoiled = zipfile.ZipFile(io.BytesIO(saved)), io.BytesIO()
    with zipfile.ZipFile(spoiled, "w") as archive:
        for info in there.infolist():
            content = there.read(info)
            archive.writestr(info, data.draw(spoiled_bytes(content)) if info.filename.endswith(".pkl") else content)
    resumed(spoiled.getvalue(), tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("left_out", ["model", "optimizer", "scheduler", "scaler", "random", "buffers", "done"])
def test_one_that_lacks_something_is_not_taken_for_whole(saved, tmp_path, left_out):
    state = torch.load(io.BytesIO(saved), weights_only=True)
    del state[left_out]
    file = io.BytesIO()
    torch.save(state, file)
    assert isinstance(resumed(file.getvalue(), tmp_path), KeyError)


class Evil:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("marker"),)


class Evaluated:
    def __reduce__(self):
        return eval, ('open("marker", "w").close()',)


def payloads(saved):
    for evil in (Evil(), Evaluated(), {"model": Evil()}):
        for new_format in (True, False):
            file = io.BytesIO()
            torch.save(evil, file, _use_new_zipfile_serialization=new_format)
            yield file.getvalue()
        yield pickle.dumps(evil)
    state = torch.load(io.BytesIO(saved), weights_only=True)
    file = io.BytesIO()
    torch.save({**state, "scheduler": {**state["scheduler"], "last_epoch": Evil()}}, file)
    yield file.getvalue()


def test_a_checkpoint_runs_no_code(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list(payloads(saved))
    assert len(found) == 10
    for data in found:
        assert resumed(data, tmp_path) is not None
        assert not Path("marker").exists()


def test_each_would_run_code_if_all_were_unpickled(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in payloads(saved):
        try:
            torch.load(io.BytesIO(data), weights_only=False)
        except Exception:
            pickle.loads(data)
        assert Path("marker").exists()
        Path("marker").unlink()


def test_what_claims_to_be_larger_than_memory_is_refused(saved, tmp_path):
    state = torch.load(io.BytesIO(saved), weights_only=True)
    state["random"]["cpu"] = torch.empty(1, dtype=torch.uint8).expand(2**40)
    file = io.BytesIO()
    torch.save(state, file)
    assert len(file.getvalue()) < 2 * len(saved)
    assert resumed(file.getvalue(), tmp_path) is not None


def test_the_same_holds_for_what_training_calls_it(saved):
    assert training.resume is checkpoint.resume
