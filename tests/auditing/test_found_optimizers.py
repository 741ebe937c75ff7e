"""Each optimizer has a story of its own, also if it has the ``id`` of one that is gone."""

import gc

import torch

from gradparity.auditing.watching.found_modules import Modules
from gradparity.auditing.watching.found_optimizers import Registry


def test_no_two_optimizers_have_one_number():
    known, numbers, ids, kept = Registry(Modules()), [], [], []
    for index in range(40):
        optimizer = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
        numbers.append(known.trainee(optimizer).story.number)
        ids.append(id(optimizer))
        if index % 3 == 0:
            kept.append(optimizer)
        del optimizer
        gc.collect()
    assert len(set(ids)) < len(ids)
    assert len(set(numbers)) == len(numbers)
