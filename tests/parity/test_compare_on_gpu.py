"""Tensors on a device of their own are compared there, with one wait for it per phase.

There is none here but the CPU, so the CPU plays its part; ``tests/cuda`` asks the same of a GPU.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradparity.parity import compare_on_gpu
from gradparity.parity.bits import same_bits
from gradparity.parity.compare_on_gpu import differs, prefetch_device_comparisons, read_at_once
from small import comparisons, small_config

NAN, OTHER_NAN = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
X = torch.arange(1.0, 7.0).view(2, 3)
PAIRS = {
    "equal": (X, X.clone()),
    "one ULP": (X, X.nextafter(X + 1)),
    "one element": (X, X.index_fill(1, torch.tensor(2), 0.0)),
    "signs of zero": (torch.zeros(()), -torch.zeros(())),
    "one NaN": (NAN, NAN.clone()),
    "two NaNs": (NAN, OTHER_NAN),
    "strides": (X, X.t().contiguous().t()),
    "expanded": (torch.ones(1).expand(3), torch.ones(3)),
    "empty": (torch.zeros(0), torch.zeros(0)),
    "fp16": (X.half(), X.half() * 2),
    "complex": (torch.tensor([1 + 0j]), torch.tensor([1 - 0j])),
    "integers": (torch.tensor([1, 2]), torch.tensor([1, 2])),
    "truths": (torch.tensor([True]), torch.tensor([False])),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_answer_there_is_the_answer_here(name):
    a, b = PAIRS[name]
    assert read_at_once([differs(a, b)]) == [not same_bits(a, b)]


def test_the_pairs_have_both_answers():
    assert {same_bits(*pair) for pair in PAIRS.values()} == {True, False}
    assert read_at_once([]) == []


class Asked(TorchDispatchMode):
    """Counts what one would have to wait for if the tensors were on a GPU."""

    def __init__(self):
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.waits += function in (torch.ops.aten.equal.default, torch.ops.aten._local_scalar_dense.default)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def elsewhere(monkeypatch):
    """The CPU as another device; and how often it was waited for."""
    reads = []

    def counted(scalars):
        reads.append(len(scalars))
        return read_at_once(scalars)

    monkeypatch.setattr(compare_on_gpu, "on_one_device", lambda a, b: True)
    monkeypatch.setattr(compare_on_gpu, "read_at_once", counted)
    return reads


def parameters(count=20):
    return [{f"p{i}": torch.full((3,), float(i)) for i in range(count)} for _ in range(2)]


def asked(same, ours, theirs):
    with Asked() as mode:
        answers = [same(ours[name], theirs[name]) for name in ours]
    return answers, mode.waits


def test_many_tensors_are_one_wait(elsewhere):
    ours, theirs = parameters()
    theirs["p7"][1] = 70.0
    with Asked() as mode:
        same = prefetch_device_comparisons([(ours, theirs)])
    answers, later = asked(same, ours, theirs)
    assert answers == [i != 7 for i in range(20)]
    assert (elsewhere, mode.waits, later) == ([20], 0, 0)


def test_without_it_each_is_a_wait():
    ours, theirs = parameters()
    answers, waits = asked(prefetch_device_comparisons([(ours, theirs)]), ours, theirs)
    assert all(answers)
    assert waits == 20, "on the CPU, where they cost nothing"


def test_tensors_that_a_gpu_cannot_compare_are_left_to_same_bits(elsewhere):
    sparse = torch.eye(2).to_sparse()
    values = [torch.zeros(2), torch.zeros(3), torch.zeros(2, dtype=torch.int32), sparse, None, 0.5]
    for a in values:
        for b in values:
            if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a is b and a is not sparse):
                elsewhere.clear()
                prefetch_device_comparisons([({"x": a}, {"x": b})])
                assert elsewhere == [0]
    prefetch_device_comparisons([({"x": values[0]}, {"y": values[0]})])
    assert elsewhere == [0, 0]


@pytest.mark.parametrize(
    ("task", "candidate"), [("digits_cnn", "manual"), ("digits_cnn", "clip-before-unscale"), ("additive", "naive")]
)
def test_every_finding_is_the_same_and_every_phase_waits_once(task, candidate, elsewhere, monkeypatch):
    config = small_config(task=task, precision="fp16", candidate=candidate)
    there = list(comparisons(config))
    monkeypatch.undo()
    here = list(comparisons(config))
    found, expected = ([(f.checked, f.numbers, f.mismatches, f.figures) for f in each] for each in (there, here))
    assert repr(found) == repr(expected), "a NaN among figures is no difference"
    assert any(f.mismatches for f in here) == (candidate != "manual")
    assert len(elsewhere) == sum(bool(f.checked) for f in there) > 20
    assert max(elsewhere) > 10
