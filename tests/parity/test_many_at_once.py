"""Many pairs are compared at once, on the CPU and on a GPU; whatever changes from one phase to the next is still seen.

There is no GPU here, so the CPU plays its part; ``tests/cuda`` asks the same of a GPU.
"""

import copy

import pytest
import torch
from torch import nn

from gradparity.parity import many_at_once
from gradparity.parity.bits import same_bits
from gradparity.parity.compare import compare
from gradparity.parity.many_at_once import ManyPairs
from gradparity.parity.state import Part
from gradparity.parity.step_metrics import read_at_once
from small import comparisons, small_config

NAN, OTHER_NAN = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
X = torch.arange(1.0, 7.0).view(2, 3)
LARGE = torch.arange(5000.0)
PAIRS = {
    "equal": (X, X.clone()),
    "one ULP": (X, X.nextafter(X + 1)),
    "one element": (X, X.index_fill(1, torch.tensor(2), 0.0)),
    "signs of zero": (torch.zeros(()), -torch.zeros(())),
    "one NaN": (NAN, NAN.clone()),
    "two NaNs": (NAN, OTHER_NAN),
    "sliced": (X[:, 1:], X.clone()[:, 1:]),
    "channels last": (X.t(), X.clone().t()),
    "expanded": (torch.ones(1).expand(3), torch.full((1,), 2.0).expand(3)),
    "fp16": (X.half(), X.half() * 2),
    "float8": (X.to(torch.float8_e4m3fn), X.to(torch.float8_e4m3fn)),
    "another float8": (X.to(torch.float8_e4m3fn), (X + 1).to(torch.float8_e4m3fn)),
    "integers": (torch.tensor([1, 2]), torch.tensor([1, 2])),
    "truths": (torch.tensor([True]), torch.tensor([False])),
    "a large one": (LARGE, LARGE.clone()),
    "a large one's last element": (LARGE, LARGE.index_fill(0, torch.tensor(4999), 0.0)),
    "parameters": (nn.Parameter(X), nn.Parameter(X + 1)),
    "a number": (0.5, 0.5),
    "None": (None, None),
}
NEVER_TOGETHER = {
    "empty": (torch.zeros(0), torch.zeros(0)),
    "complex": (torch.tensor([1 + 0j]), torch.tensor([1 + 0j])),
    "sparse": (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
    "a shape": (X, X.flatten()),
    "strides": (X, X.t().contiguous().t()),
    "a dtype": (X, X.double()),
    "a class": (X, nn.Parameter(X.clone())),
    "one tensor for both": (LARGE, LARGE),
    "memory that overlaps": (LARGE[:4], LARGE[1:5]),
    "one is None": (X, None),
}


@pytest.fixture(params=["on the CPU", "elsewhere"])
def device(request, monkeypatch):
    """The CPU, as itself and as a GPU; the number of pairs at each wait for it."""
    waits, count = [], many_at_once.count_differences

    def counted(ours, theirs, forms):
        waits.append(len(ours))
        return count(ours, theirs, forms)

    monkeypatch.setattr(many_at_once, "count_differences", counted)
    if request.param == "elsewhere":
        monkeypatch.setattr(many_at_once, "_is_on_host", lambda tensor: False)
    return waits


def doubtful(ours, theirs, pairs=None):
    return (pairs or ManyPairs(set())).compare(ours, theirs).doubtful


@pytest.mark.parametrize("name", PAIRS)
def test_one_pair_is_the_same_if_its_bits_are(name, device):
    a, b = PAIRS[name]
    same = same_bits(a, b) if isinstance(a, torch.Tensor) else a is b
    for others in ([], [X, LARGE]):
        found = doubtful([a, *others], [b, *(other.clone() for other in others)])
        assert found == ([] if same else [0])


def test_the_pairs_have_both_answers():
    tensors = [pair for pair in PAIRS.values() if isinstance(pair[0], torch.Tensor)]
    assert {same_bits(*pair) for pair in tensors} == {True, False}


@pytest.mark.parametrize("name", NEVER_TOGETHER)
def test_a_pair_that_may_differ_in_more_than_bits_is_left_to_a_closer_look(name, device):
    a, b = NEVER_TOGETHER[name]
    pairs = ManyPairs(set())
    expected = [] if name == "empty" else [1]
    for _ in range(3):
        assert doubtful([X, a], [X.clone(), b], pairs) == expected


def parameters(count=20):
    return [[torch.full((3,), float(i)) for i in range(count)] for _ in range(2)]


def test_the_one_that_differs_is_found_among_many_with_one_wait(device):
    ours, theirs = parameters()
    theirs[7][1] = 70.0
    alike = ManyPairs(set()).compare(ours, theirs)
    assert alike == ([7], 19 * 3)
    assert len(device) <= 1


def test_stacks_are_of_limited_size(monkeypatch):
    monkeypatch.setattr(many_at_once, "_AT_ONCE", 3 * 4 * 6)
    ours, theirs = parameters()
    for i in (0, 5, 6, 19):
        theirs[i][2] = -1.0
    assert doubtful(ours, theirs) == [0, 5, 6, 19]


def write_through_data(t):
    t.data[0] = 100.0


def write_with_foreach(t):
    torch._foreach_add_([t], 1.0)


def write_through_memory(t):
    t.numpy()[0] = 100.0


def other_storage(t):
    t.data = t.clone() + 1


@pytest.mark.parametrize("write", [write_through_data, write_with_foreach, write_through_memory, other_storage])
@pytest.mark.parametrize("at", [0, 3, 4])
def test_every_write_is_seen_whatever_the_version_counter_says(write, at, device):
    ours, theirs = parameters(4)
    ours, theirs, pairs = [*ours, LARGE.clone()], [*theirs, LARGE.clone()], ManyPairs(set())
    assert doubtful(ours, theirs, pairs) == doubtful(ours, theirs, pairs) == []
    write(theirs[at])
    assert doubtful(ours, theirs, pairs) == [at]
    write(ours[at])
    assert doubtful(ours, theirs, pairs) == []


def freed(t):
    t.untyped_storage().resize_(0)
    return t


CHANGES = {
    "a dtype": lambda t: t.double(),
    "a dtype of the same width": lambda t: t.view(torch.int32),
    "a shape": lambda t: t.view(1, 3),
    "strides": lambda t: torch.stack([t, t], 1)[:, 0],
    "a class": nn.Parameter,
    "None": lambda t: None,
    "a sparse tensor": lambda t: t.to_sparse(),
    "a freed storage": freed,
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_one_side_is_seen_and_so_is_its_end(what, device):
    ours, theirs = parameters(4)
    kept, pairs = theirs[2], ManyPairs(set())
    for _ in range(3):  # the places are known by then
        assert doubtful(ours, theirs, pairs) == []
    theirs[2] = CHANGES[what](kept.clone())
    assert doubtful(ours, theirs, pairs) == doubtful(ours, theirs, pairs) == [2]
    theirs[2] = kept
    assert doubtful(ours, theirs, pairs) == []


def transposed_in_place(t):
    t.t_()


def resized_in_place(t):
    t.resize_(2, 2)


@pytest.mark.parametrize("change", [transposed_in_place, resized_in_place, freed])
def test_a_tensor_that_changes_its_form_in_place_is_seen(change, device):
    ours, theirs, pairs = [X.clone(), X.clone()], [X.clone(), X.clone()], ManyPairs(set())
    for _ in range(3):  # the places are known by then
        assert doubtful(ours, theirs, pairs) == []
    change(theirs[1])
    assert doubtful(ours, theirs, pairs) == [1]


def test_a_tensor_that_both_runs_come_to_hold_is_seen(device):
    ours, theirs = parameters(4)
    pairs = ManyPairs(set())
    for _ in range(3):  # the places are known by then
        assert doubtful(ours, theirs, pairs) == []
    theirs[1] = ours[1]
    assert doubtful(ours, theirs, pairs) == [1]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        *[(3, 3, True), (0, 0, True), (3, 4, False), (1, True, False), (1, 1.0, False), (None, 0, False)],
        *[(0.1, 0.1, True), (0.0, -0.0, False), (float("nan"), float("nan"), None), (0.1, 0.2, False)],
        *[("a", "a", True), ("a", "b", False), (("a", "b"), ("a", "b"), True), (("a", "b"), ("b", "a"), False)],
    ],
)
def test_values_that_are_no_tensors_are_left_to_a_closer_look_unless_they_are_certainly_the_same(a, b, same):
    ours, theirs = (copy.deepcopy(x) if not isinstance(x, float) else float(repr(x)) for x in (a, b))
    doubtful = ManyPairs(set()).compare([ours], [theirs]).doubtful
    found = compare(Part.SCHEDULER, {"x": ours}, {"x": theirs}).mismatches
    assert bool(found) == (same is False)
    assert doubtful == ([] if same else [0])


def test_what_one_phase_knows_of_places_holds_at_another_only_for_the_same_places():
    ours, theirs = parameters(4)
    safe = set()
    phases = [ManyPairs(safe), ManyPairs(safe)]
    for _ in range(3):
        assert [doubtful(ours, theirs, pairs) for pairs in phases] == [[], []]
    theirs[1].data = ours[1]
    assert [doubtful(ours, theirs, pairs) for pairs in phases] == [[1], [1]]
    assert doubtful(theirs[1:2] * 4, ours, phases[0]) == [0, 1, 2, 3]


def test_places_that_are_known_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(many_at_once, "_MOST_PLACES", 100)
    pairs, kept = ManyPairs(safe := set()), []
    for _ in range(50):
        kept.append(parameters())
        assert doubtful(*kept[-1], pairs) == []
    assert 20 <= len(safe) <= 120


def test_memory_that_nobody_holds_is_not_read(monkeypatch):
    """Reading a freed tensor ends the process, so none of the two is touched."""
    ours, theirs = parameters(2)
    for tensor in (ours[0], theirs[0]):
        freed(tensor)
    assert doubtful(ours, theirs) == [0]
    (mismatches, _, unseen) = compare(Part.PARAMETERS, {"w": ours[0]}, {"w": theirs[0]})
    assert (mismatches, unseen) == ([], ["w"])


def test_scalars_are_read_at_once():
    assert read_at_once([]) == []
    assert read_at_once([torch.tensor(1.5), torch.tensor(2.5)]) == [1.5, 2.5]


@pytest.mark.parametrize(
    ("task", "candidate"), [("digits_cnn", "manual"), ("digits_cnn", "clip-before-unscale"), ("additive", "naive")]
)
def test_every_finding_is_that_of_a_comparison_one_by_one(task, candidate, device, monkeypatch):
    config = small_config(task=task, precision="fp16", candidate=candidate)
    at_once = list(comparisons(config))
    monkeypatch.setattr(ManyPairs, "compare", lambda self, a, b: many_at_once.PairsToCheck(list(range(len(a))), 0))
    one_by_one = list(comparisons(config))
    found, expected = ([(f.checked, f.numbers, f.mismatches, f.figures) for f in x] for x in (at_once, one_by_one))
    assert repr(found) == repr(expected), "a NaN among figures is no difference"
    assert any(f.mismatches for f in one_by_one) == (candidate != "manual")
    assert len(device) <= sum(bool(f.checked) for f in at_once), "one wait a phase"
