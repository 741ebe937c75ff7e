"""Whatever a loop does, it makes the same updates under a recording as without one, and raises nothing more."""

import gc
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import gradparity
from gradparity.parity.bits import same_bits
from gradparity.parity.dense_parts import pieces
from gradparity.trace.events import Event
from gradparity.trace.isolation import RecordingWarning
from gradparity.trace.trace_file import read
from strange_loops import LOOPS


class Recordings:
    """``gradparity.record`` into a folder each."""

    def __init__(self, base: Path, full: bool):
        self.base, self.full, self.folders = base, full, []

    def __call__(self, *things, **others):
        self.folders.append(self.base / str(len(self.folders)))
        return gradparity.record(*things, self.folders[-1], full=self.full, **others)


def unwatched(*_, **__):
    return nullcontext()


def bits_after(loop, record):
    """The tensors that a loop has trained, its optimizers' state, and torch's random state, in their order."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    left = loop(record)
    state = [torch.get_rng_state()]
    for thing in left:
        if isinstance(thing, nn.Module | Optimizer):
            gather(thing.state_dict(), state)
        if isinstance(thing, nn.Module):
            gather([p.grad for p in thing.parameters()], state)
    found = [piece.clone() for tensor in state for piece in pieces(tensor).values()]
    del left, thing
    gc.collect()
    return found


def gather(value, found):
    if isinstance(value, Tensor):
        found.append(value.detach())
    elif isinstance(value, dict):
        gather(list(value.values()), found)
    elif isinstance(value, list | tuple):
        for item in value:
            gather(item, found)


@pytest.mark.parametrize("full", [False, True], ids=["hashes", "full"])
@pytest.mark.parametrize("name", LOOPS)
def test_a_watched_loop_makes_the_same_bits(name, full, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = bits_after(LOOPS[name], unwatched)
        recordings = Recordings(tmp_path, full)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", RecordingWarning)
            watched = bits_after(LOOPS[name], recordings)
    assert len(expected) == len(watched) > 2
    for ours, theirs in zip(expected, watched, strict=True):
        assert ours.shape == theirs.shape
        assert same_bits(ours, theirs)
    assert not [str(w.message) for w in warned if "the recording ends here" in str(w.message)]
    assert recordings.folders
    for folder in recordings.folders:
        trace = read(folder)
        assert trace.complete or name == "generator_left_open"
        assert any(r.event in (Event.STEP, Event.SKIP) for r in trace.records) != any(
            "no step" in n for n in trace.notes
        )


def test_the_comparison_sees_a_recording_that_changes_a_bit(tmp_path):
    class Clumsy(Recordings):
        def __call__(self, model, *others, **more):
            with torch.no_grad():
                next(model.parameters()).view(-1)[0].mul_(1 + 2**-20)
            return super().__call__(model, *others, **more)

    ours, theirs = bits_after(LOOPS["plain"], unwatched), bits_after(LOOPS["plain"], Clumsy(tmp_path, False))
    assert not all(same_bits(a, b) for a, b in zip(ours, theirs, strict=True))
