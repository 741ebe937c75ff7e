"""A tensor has a number of its own, also if it has the ``id`` of one that is gone."""

import weakref

import torch
from torch import nn

import gradparity
from gradparity.auditing.watching.tensor_keys import TensorKeys


def test_a_tensor_keeps_its_number():
    key, one, other = TensorKeys(), torch.zeros(2), torch.zeros(2)
    assert (key(one), key(other), key(one)) == (1, 2, 1)


def test_no_number_is_given_twice_though_ids_are():
    key = TensorKeys()
    numbers, ids = [], set()
    for _ in range(50):
        tensor = torch.zeros(2)
        numbers.append(key(tensor))
        ids.add(id(tensor))
        del tensor
    assert len(ids) < 50
    assert numbers == sorted(set(numbers))


def test_a_tensor_that_is_swapped_has_no_reference_meanwhile_and_its_number_after():
    key, tensor = TensorKeys(), torch.zeros(2)
    number = key(tensor)
    with key.without([tensor]):
        assert not weakref.getweakrefs(tensor)
    assert key(tensor) == number


def test_a_model_is_converted_by_a_swap_as_without_an_audit():
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with gradparity.audit() as audit:
            model = nn.Linear(4, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(4):
                if step == 2:
                    model.to(torch.float64)
                optimizer.zero_grad()
                model(torch.ones(2, 4, dtype=model.weight.dtype)).mean().backward()
                optimizer.step()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert audit.report.notes == ()
