"""Tensors have known forms exactly if nothing in which bits could differ has changed."""

import pytest
import torch
from torch import nn

from gradparity.parity import known_forms
from gradparity.parity.aliasing import KnownApart
from gradparity.parity.known_forms import KnownForms


@pytest.fixture(params=["PyTorch's", "ours"])
def function(request, monkeypatch):
    """The compiler's function, and what stands in for it."""
    if request.param == "ours":
        monkeypatch.setattr(known_forms, "_GUARDS", None)
    else:
        assert hasattr(known_forms._GUARDS, "TensorGuards"), "without it everything holds, only slower"


def some():
    return [torch.ones(4), nn.Parameter(torch.ones(2, 3)), torch.zeros(()), torch.ones(2, dtype=torch.bfloat16)]


CHANGES = {
    "a dtype": lambda: torch.ones(4).double(),
    "a dtype of the same width": lambda: torch.ones(4, dtype=torch.int32),
    "a shape": lambda: torch.ones(5),
    "another number of dimensions": lambda: torch.ones(4, 1),
    "strides": lambda: torch.ones(8)[::2],
    "a class": lambda: nn.Parameter(torch.ones(4), requires_grad=False),
    "a gradient that is required": lambda: torch.ones(4, requires_grad=True),
    "a device": lambda: torch.ones(4, device="meta"),
    "a layout": lambda: torch.ones(4).to_sparse(),
    "the negative bit": lambda: torch.view_as_complex(torch.ones(4, 2)).conj().imag,
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(2)]),
    "a quantized tensor": lambda: torch.quantize_per_tensor(torch.ones(4), 1.0, 0, torch.qint8),
    "a parameter without content": nn.UninitializedParameter,
    "no tensor": lambda: None,
    "a number": lambda: 3.0,
}


@pytest.mark.usefixtures("function")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:torch.quantize")
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_one_form_is_seen(change):
    forms = KnownForms(some())
    assert forms.match(some())
    assert forms.match(tuple(t + 1 if type(t) is torch.Tensor else t for t in some())), "the content does not matter"
    assert not forms.match([CHANGES[change](), *some()[1:]])


@pytest.mark.usefixtures("function")
def test_the_number_of_tensors_and_their_order_count():
    forms = KnownForms(some())
    assert not forms.match(some()[:-1])
    assert not forms.match([*some(), torch.ones(1)])
    assert not forms.match(some()[::-1])
    assert KnownForms([]).match([])
    assert not KnownForms([]).match([None])


@pytest.mark.usefixtures("function")
def test_the_conjugate_of_a_complex_tensor_is_another_form():
    tensor = torch.ones(2, dtype=torch.complex64)
    assert KnownForms([tensor]).match([tensor.clone()])
    assert not KnownForms([tensor]).match([tensor.conj()])


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize("make", [lambda: torch.ones(2).to_sparse(), lambda: torch.eye(2).to_sparse_csr()])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_tensors_without_strides_have_no_known_form(make):
    with pytest.raises(RuntimeError):
        KnownForms([torch.ones(2), make()])


@pytest.mark.usefixtures("function")
def test_a_form_that_is_changed_in_place_is_seen():
    for change in (lambda t: t.t_(), lambda t: t.resize_(1, 2), lambda t: setattr(t, "data", t.double())):
        tensor = torch.ones(2, 3)
        forms = KnownForms([tensor])
        change(tensor)
        assert not forms.match([tensor])


def test_memory_that_comes_to_be_shared_is_seen_though_no_form_has_changed():
    memory, apart = torch.zeros(12), KnownApart()
    tensors = [memory[:4], memory[4:8], memory[8:]]
    assert not apart.are_still(tensors), "nothing was known of them"
    for _ in range(3):
        assert apart.are_still(tensors)
    assert not apart.are_still([memory[:4], memory[3:7], memory[8:]])
    assert not apart.are_still([memory[:4], memory[:4], memory[8:]])
    assert apart.are_still(tensors)
    assert not apart.are_still([memory[::3], memory[4:8], memory[8:]])
    assert not apart.are_still([memory.to_sparse(), memory[:1]])
    assert apart.are_still(tensors[::-1])


def test_a_flag_that_changes_is_seen_though_no_tensor_has_moved():
    apart, tensors = KnownApart(), [torch.zeros(4), torch.zeros(4)]
    apart.are_still(tensors)
    assert apart.are_still(tensors)
    tensors[1].requires_grad_()
    assert not apart.are_still(tensors)
