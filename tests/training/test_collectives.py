"""Averages over ranks, against averages by hand."""

import pytest
import torch
from torch import nn

import ends
from gradparity.processes.launch import launch
from gradparity.training.collectives import BUCKET, buckets


@pytest.mark.parametrize("in_order", [False, True])
def test_gradients_are_averaged_each_once_and_none_stays_none(in_order):
    for rank, (gradients, strides, total) in enumerate(launch(ends.averages, 2, in_order)):
        full, one, nowhere, frozen, double, turned = gradients
        assert full == [1.5, 1.5], "listed twice, averaged once"
        assert one == [2.0, 2.0], "no gradient on rank 0 counts as zero there"
        assert nowhere is None
        assert frozen == [float(rank)] * 2
        assert double == [1.0, 1.0]
        assert turned == [[0.0, 4.5], [1.5, 6.0], [3.0, 7.5]]
        assert strides == (1, 3)
        assert total == 3


def test_buckets_hold_one_dtype_and_at_most_their_size():
    a, b, c = (nn.Parameter(torch.zeros(4, dtype=dtype)) for dtype in (torch.float32, torch.float32, torch.float64))
    assert [len(bucket) for bucket in buckets([a, b, c])] == [2, 1]
    assert [len(bucket) for bucket in buckets([a, b, c], size=31)] == [1, 1, 1]
    assert [len(bucket) for bucket in buckets([a, b], size=32)] == [2]
    assert list(buckets([])) == []
    assert BUCKET == 25 * 2**20
