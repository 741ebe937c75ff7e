"""A look at gradients, in columns: it is equal to another exactly where all of their bits are."""

import pytest
import torch
from helpers import slow_gpu

from gradparity.auditing.gradient_looks import Look
from gradparity.trace.late_fingerprints import fingerprint


def some():
    return [torch.arange(3.0), None, torch.full((2, 2), -1.0), torch.ones(2000)]


def test_items_are_fingerprints_and_none_where_there_is_no_gradient():
    look = Look(some())
    assert list(look) == [None if g is None else fingerprint(g) for g in some()]
    assert (look == look.items(), look[1:3] == look.items()[1:3]) == (True, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda gradients: gradients[0].__setitem__(1, 5.0),
        lambda gradients: gradients[3].__setitem__(1999, 5.0),
        lambda gradients: gradients.__setitem__(1, torch.zeros(3)),
        lambda gradients: gradients.__setitem__(2, gradients[2].double()),
        lambda gradients: gradients.__setitem__(0, -gradients[0].neg()),
    ],
)
def test_looks_are_equal_where_all_bits_are(change):
    gradients = some()
    one, again = Look(gradients), Look(gradients)
    assert one == again
    change(gradients)
    other = Look(gradients, last=again)
    same = all(
        (a is None) == (b is None) and (a is None or (a.digest == b.digest and a.dtype == b.dtype))
        for a, b in zip(one, other, strict=True)
    )
    assert (one == other) == same
    assert one != Look(some()[:3])


def test_a_look_with_the_one_before_it_is_the_same():
    gradients = some()
    assert list(Look(gradients, last=Look(gradients))) == list(Look(gradients))


def test_what_is_not_known_yet_is_judged_by_the_version_counters(monkeypatch):
    slow_gpu.make_late(monkeypatch)
    gradients = some()
    one = Look(gradients)
    assert one.is_known_equal(Look(gradients))
    gradients[0].mul_(1)
    assert not one.is_known_equal(Look(gradients))
    assert one == Look(gradients), "read at last, the bits are the same"
    slow_gpu.forget_arrangements()
