import math

import pytest
import torch
import torch.distributed as dist

from gradparity.parity.difference_sums import _AT_ONCE
from gradparity.parity.metrics import Difference
from gradparity.parity.mismatches import figures_of
from gradparity.processes.launch import launch


def figures(*pairs):
    metric = Difference()
    for reference, candidate in pairs:
        metric.update(reference, candidate)
    return metric.compute()


def test_figures_of_a_known_difference():
    reference = torch.tensor([3.0, 4.0, 1.0, 0.0], dtype=torch.float64)
    candidate = torch.tensor([3.0, 4.0 + 2**-50 * 4, 1.0, 0.0], dtype=torch.float64)
    f = figures((reference, candidate))
    assert f.elements == 4
    assert f.differing == 1
    assert f.max_ulp == f.median_ulp == 4
    assert f.max_absolute == 2**-48
    assert f.max_relative == 2**-50
    assert f.relative_norm == pytest.approx(2**-48 / math.sqrt(26), rel=1e-12)
    assert f.cosine == pytest.approx(1, abs=1e-15)
    assert f.norm_ratio == pytest.approx(1, abs=1e-15)


def test_direction_and_length():
    reference = torch.randn(100)
    assert figures((reference, reference / 4)).norm_ratio == pytest.approx(0.25)
    assert figures((reference, reference / 4)).cosine == pytest.approx(1)
    assert figures((reference, -reference)).cosine == pytest.approx(-1)
    assert figures((torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))).cosine == 0


def test_the_median_is_of_the_elements_that_differ_and_rounded_down_to_a_power_of_two():
    reference = torch.zeros(7, dtype=torch.int32)
    candidate = torch.tensor([0, 0, 0, 1, 6, 7, 1000], dtype=torch.int32)
    assert figures((reference.view(torch.float32), candidate.view(torch.float32))).median_ulp == 4


def test_nothing_differs():
    f = figures((torch.ones(3), torch.ones(3)))
    assert (f.elements, f.differing, f.max_ulp, f.median_ulp, f.max_absolute) == (3, 0, 0, 0, 0.0)
    assert f.cosine == pytest.approx(1)


def test_elements_that_are_not_finite_count_as_different_and_leave_other_figures_finite():
    f = figures((torch.tensor([1.0, math.inf, math.nan, 2.0]), torch.tensor([1.5, 1.0, 1.0, math.inf])))
    assert f.differing == 4
    assert f.max_absolute == f.max_relative == 0.5
    assert f.norm_ratio == pytest.approx(1.5)


def test_relative_passes_over_zeros_and_a_zero_reference_has_no_ratio():
    f = figures((torch.zeros(2), torch.tensor([0.0, 1.0])))
    assert f.max_relative == 0.0
    assert f.max_absolute == 1.0
    assert math.isinf(f.norm_ratio)
    assert math.isnan(f.cosine)


def test_pairs_add_up_to_the_same_figures_as_one_long_pair():
    a, b = torch.randn(50), torch.randn(50)
    together, apart = figures((a, b)), figures(*zip(a.split(7), b.split(7), strict=True))
    assert together[:6] == apart[:6]
    assert together.histogram == apart.histogram
    assert together[6:9] == pytest.approx(apart[6:9], rel=1e-12)


def test_a_large_pair_is_taken_in_piece_by_piece_to_its_last_element():
    a = torch.randn(2 * _AT_ONCE + 5)
    b = a.clone()
    places = [0, _AT_ONCE - 1, _AT_ONCE, 2 * _AT_ONCE + 4]
    b[places] = torch.nextafter(a[places], torch.tensor(math.inf))
    f = figures((a, b))
    assert (f.elements, f.differing, f.max_ulp) == (len(a), len(places), 1)
    exact = (b.double() - a.double()).norm() / a.double().norm()
    assert f.relative_norm == pytest.approx(float(exact), rel=1e-12)
    assert figures((a.view(3, -1).t(), b.view(3, -1).t()))[:6] == f[:6], "whatever the strides"


def test_the_histogram_counts_what_differs_by_powers_of_two():
    a = torch.ones(6)
    f = figures((a, (a.view(torch.int32) + torch.tensor([0, 1, 2, 3, 4, 9], dtype=torch.int32)).view(torch.float32)))
    assert f.histogram == (1, 2, 1, 1)
    assert figures((a, a.clone())).histogram == ()


def test_without_torchmetrics_the_figures_are_the_same():
    pairs = [(torch.randn(30), torch.randn(30)) for _ in range(3)]
    assert figures_of(pairs) == figures(*pairs)
    assert figures_of(pairs[:2]) != figures(*pairs)


def test_a_reset_metric_has_forgotten():
    metric = Difference()
    metric.update(torch.ones(2), torch.zeros(2))
    metric.reset()
    metric.update(torch.ones(2), torch.ones(2))
    assert metric.compute().differing == 0


def of_a_half(a, b):
    """What a rank computes that holds one half, and the other rank the other."""
    metric = Difference()
    half = slice(0, 30) if dist.get_rank() == 0 else slice(30, None)
    metric.update(a[half], b[half])
    return tuple(metric.compute())


def test_two_synced_processes_give_the_figures_of_one():
    a, b = torch.randn(50), torch.randn(50)
    ranks = launch(of_a_half, 2, a, b)
    alone = figures((a, b))
    assert ranks[0] == ranks[1]
    assert ranks[0][:6] == alone[:6]
    assert ranks[0][9:] == (alone.histogram,)
    assert ranks[0][6:9] == pytest.approx(alone[6:9], rel=1e-12)
    assert figures((a[:30], b[:30]))[:6] != alone[:6], "each rank held only a part"
