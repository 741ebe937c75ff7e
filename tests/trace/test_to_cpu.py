"""What is to be written down comes to the host as it is: bits, strides and all."""

import pytest
import torch
from torch import nn

from gradparity.parity.state import Part
from gradparity.trace.late_fingerprints import fingerprint
from gradparity.trace.to_cpu import copy_to_cpu, to_cpu

X = torch.arange(24.0).view(2, 3, 4)
TENSORS = {
    "contiguous": X,
    "parameter": nn.Parameter(X.clone()),
    "transposed": X.transpose(0, 2),
    "sliced": X[:, 1, ::2],
    "permuted, sliced": X.permute(1, 2, 0)[1:, :2],
    "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
    "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "a number": torch.tensor(3.0),
    "empty": torch.zeros(0, 3),
    "complex": torch.tensor([1 + 2j, 3 - 4j]),
    "half": X.half(),
    "truths": X > 7,
    "sparse": torch.eye(3).to_sparse(),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_copy_has_the_fingerprint_of_the_original(name):
    copy = copy_to_cpu(TENSORS[name])
    assert fingerprint(copy) == fingerprint(TENSORS[name])
    assert not copy.requires_grad


def test_values_that_are_no_tensors_stay():
    assert [copy_to_cpu(value) for value in (None, 3, "lr", (1, 2))] == [None, 3, "lr", (1, 2)]


def test_tensors_on_the_cpu_are_not_copied():
    seen = {Part.GRADIENTS: {"w": X, "b": None}}
    assert to_cpu(seen) is seen
