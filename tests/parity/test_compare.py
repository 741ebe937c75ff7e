"""The comparer is tested for failing first."""

import math

import pytest
import torch

from gradparity.parity import mismatches as mismatches_module
from gradparity.parity.compare import SharedMemoryError, compare
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.mismatches import figures_of
from gradparity.parity.state import Part

ONE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def kinds(a, b):
    """The kinds of mismatch between two values, and the figures over them."""
    mismatches, figures, _ = compare(Part.GRADIENTS, {"w": a}, {"w": b})
    assert all(m.name == "w" and m.part == Part.GRADIENTS for m in mismatches)
    return [m.kind for m in mismatches], figures


@pytest.mark.parametrize(
    "value", [None, 0, 0.1, math.nan, "x", ("a", "b"), True, ONE, torch.tensor([math.nan]), ONE.to_sparse(), ONE[:0]]
)
def test_a_value_is_the_same_as_its_copy(value):
    copy = value.clone() if isinstance(value, torch.Tensor) else value
    assert kinds(value, copy) == ([], None)


NEXT = torch.nextafter(ONE, torch.tensor(9.0))


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        (None, torch.zeros(2), Kind.PRESENCE),
        (torch.zeros(2), None, Kind.PRESENCE),
        (ONE, ONE.double(), Kind.DTYPE),
        (ONE, ONE.bfloat16(), Kind.DTYPE),
        (ONE, ONE.flatten().clone(), Kind.SHAPE),
        (ONE, ONE[:1].clone(), Kind.SHAPE),
        (ONE, ONE.to_sparse(), Kind.LAYOUT),
        (ONE, ONE.t().contiguous().t(), Kind.STRIDES),
        (ONE, NEXT, Kind.BITS),
        (ONE, ONE.flip(0), Kind.BITS),
        (torch.tensor([0.0]), torch.tensor([-0.0]), Kind.BITS),
        (torch.tensor([math.nan]), torch.tensor([0.0]), Kind.BITS),
        (torch.tensor([1]), torch.tensor([2]), Kind.BITS),
        (ONE.to_sparse(), (2 * ONE).to_sparse(), Kind.BITS),
        (0.1, 0.1 + 2**-56, Kind.VALUE),
        (0.0, -0.0, Kind.VALUE),
        (1, 1.0, Kind.VALUE),
        (1, True, Kind.VALUE),
        ("a", "b", Kind.VALUE),
        (("a", "b"), ("b", "a"), Kind.VALUE),
        (1, None, Kind.PRESENCE),
        (1.0, torch.tensor(1.0), Kind.VALUE),
    ],
)
def test_every_way_to_differ_has_its_kind(a, b, kind):
    assert kinds(a, b)[0] == [kind]


def test_sparse_tensors_differ_in_their_indices():
    a = torch.sparse_coo_tensor([[0, 1]], [1.0, 2.0], (4,), check_invariants=True).coalesce()
    b = torch.sparse_coo_tensor([[0, 2]], [1.0, 2.0], (4,), check_invariants=True).coalesce()
    assert kinds(a, b)[0] == [Kind.BITS]


def test_sparse_tensors_differ_in_being_coalesced():
    a = torch.sparse_coo_tensor([[0, 1]], [1.0, 2.0], (4,), check_invariants=True)
    assert kinds(a, a.clone().coalesce())[0] == [Kind.LAYOUT]


def test_bits_and_strides_can_differ_together():
    assert kinds(ONE, NEXT.t().contiguous().t())[0] == [Kind.BITS, Kind.STRIDES]


def test_a_stride_along_a_dimension_of_one_is_no_difference():
    a, b = torch.ones(1, 3), torch.ones(1, 3).as_strided((1, 3), (7, 1))
    assert a.stride() != b.stride()
    assert kinds(a, b)[0] == []


def test_names_that_only_one_side_has_are_mismatches_in_either_direction():
    for a, b in (({"v": 1, "w": 2}, {"v": 1}), ({"v": 1}, {"v": 1, "w": 2}), ({}, {"w": None})):
        mismatches, _, _ = compare(Part.OPTIMIZER, a, b)
        assert [(m.name, m.kind) for m in mismatches] == [("w", Kind.PRESENCE)]
    (mismatch,), _, _ = compare(Part.OPTIMIZER, {"w": None}, {})
    assert (mismatch.reference, mismatch.candidate) == ("None", "absent")


def test_the_figures_are_over_all_tensors_that_differ():
    a = {"same": ONE, "v": ONE.clone(), "w": ONE.clone()}
    b = {"same": ONE.clone(), "v": NEXT, "w": torch.nextafter(NEXT, torch.tensor(9.0))}
    mismatches, figures, _ = compare(Part.PARAMETERS, a, b)
    assert [m.figures.max_ulp for m in mismatches] == [1, 2]
    assert (figures.elements, figures.differing, figures.max_ulp) == (8, 8, 2)


def test_figures_are_taken_of_tensors_that_differ_once_each_and_of_no_others(monkeypatch):
    taken, sums_of = [], mismatches_module.sums_of
    monkeypatch.setattr(mismatches_module, "sums_of", lambda a, b: taken.append(a) or sums_of(a, b))
    a = {name: ONE.clone() for name in ("same", "v", "also the same", "w")}
    compare(Part.PARAMETERS, a, {name: value.clone() for name, value in a.items()})
    assert taken == []
    mismatches, figures, _ = compare(
        Part.PARAMETERS, a, {name: NEXT.clone() if len(name) == 1 else ONE.clone() for name in a}
    )
    assert [id(tensor) for tensor in taken] == [id(a["v"]), id(a["w"])]
    assert figures == figures_of([(a["v"], NEXT), (a["w"], NEXT)])
    assert [m.figures for m in mismatches] == [figures_of([(ONE, NEXT)])] * 2


def test_a_tensor_held_by_both_sides_is_refused_since_it_proves_nothing():
    with pytest.raises(SharedMemoryError, match="same tensor as gradients w"):
        kinds(ONE, ONE)
