"""A tensor has a number of its own, also if it has the ``id`` of one that is gone."""

import torch

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
