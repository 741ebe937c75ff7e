"""Tensors of any kind compare right, or by type and shape only, and none ends the process."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.logging_tensor import LoggingTensor
from torch.testing._internal.two_tensor import TwoTensor

from gradparity.parity.compare import compare
from gradparity.parity.dense_parts import pieces
from gradparity.parity.state import Part, aliases

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, of what is deprecated or in beta


class Sub(torch.Tensor):
    pass


def fake(_):
    with FakeTensorMode():
        return torch.empty(3)


def freed(x):
    t = torch.full((4, 4), x)
    t.untyped_storage().resize_(0)
    return t


def quantized(x):
    return torch.quantize_per_tensor(torch.full((3,), x), 0.1, 0, torch.quint8)


def channels(x):
    return torch.quantize_per_channel(torch.full((3, 2), x), torch.ones(3), torch.zeros(3), 0, torch.qint8)


SEEN = {
    "COO": lambda x: (torch.eye(3) * x).to_sparse(),
    "CSR": lambda x: (torch.eye(3) * x).to_sparse_csr(),
    "CSC": lambda x: (torch.eye(3) * x).to_sparse_csc(),
    "BSR": lambda x: (torch.eye(4) * x).to_sparse_bsr((2, 2)),
    "quantized": quantized,
    "quantized by channel": channels,
    "conjugated": lambda x: torch.full((3,), x * 1j).conj(),
    "negated": lambda x: torch.full((3,), x * 1j).conj().imag,
    "complex128": lambda x: torch.full((3,), x * 1j, dtype=torch.complex128),
    "complex32": lambda x: torch.full((3,), x * 1j, dtype=torch.complex32),
    "float8": lambda x: torch.full((3,), x).to(torch.float8_e4m3fn),
    "uint16": lambda x: torch.full((3,), int(x), dtype=torch.uint16),
    "uint64": lambda x: torch.full((3,), int(x), dtype=torch.uint64),
    "bool": lambda x: torch.full((3,), x > 1),
    "expanded": lambda x: torch.full((1,), x).expand(5),
    "jagged": lambda x: torch.nested.nested_tensor([torch.full((2,), x), torch.ones(3)], layout=torch.jagged),
    "nested": lambda x: torch.nested.nested_tensor([torch.full((2,), x), torch.ones(3)]),
    "a subclass": lambda x: torch.full((3,), x).as_subclass(Sub),
    "a wrapper": lambda x: TwoTensor(torch.full((2,), x), torch.ones(2)),
    "not a leaf": lambda x: nn.Parameter(torch.ones(2)) * x,
}

UNSEEN = {
    "meta": lambda _: nn.Parameter(torch.empty(3, device="meta")),
    "fake": fake,
    "lazy": lambda _: nn.LazyLinear(3).weight,
    "freed": freed,
    "opaque": lambda x: LoggingTensor(torch.full((2,), x)),
}


@pytest.mark.parametrize("kind", SEEN)
def test_tensors_of_every_kind_are_compared_by_their_content(kind):
    make = SEEN[kind]
    assert compare(Part.BUFFERS, {"t": make(2.0)}, {"t": make(2.0)}) == ([], None, [])
    mismatches, _, unseen = compare(Part.BUFFERS, {"t": make(2.0)}, {"t": make(1.0)})
    assert mismatches
    assert not unseen
    assert aliases({}, {"t": make(2.0)}) == {"t": "memory of its own"}


@pytest.mark.parametrize("kind", UNSEEN)
def test_tensors_without_content_are_compared_by_type_and_shape_and_named(kind):
    make = UNSEEN[kind]
    assert compare(Part.BUFFERS, {"t": make(2.0)}, {"t": make(1.0)}) == ([], None, ["t"])
    assert compare(Part.BUFFERS, {"t": make(2.0)}, {"t": torch.ones(7)})[0]
    assert aliases({}, {"t": make(2.0), "u": make(2.0)}) == dict.fromkeys("tu", "memory of its own")


def test_a_conjugated_view_is_its_copy():
    view = torch.tensor([1 + 2j]).conj()
    assert compare(Part.BUFFERS, {"t": view}, {"t": view.resolve_conj()}) == ([], None, [])


def test_plain_tensors_are_their_own_piece_without_a_copy():
    for tensor in (torch.ones(2), nn.Parameter(torch.ones(2)), torch.ones(4)[1:], torch.ones(2, 3).t()):
        assert pieces(tensor)[""].data_ptr() == tensor.data_ptr()
