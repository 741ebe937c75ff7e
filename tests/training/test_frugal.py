"""The frugal route needs the memory of ``.backward()``; that its gradients are the same is in ``test_routes``."""

import pytest
import torch
from torch import nn

from gradparity.benchmark.memory import peak_bytes
from gradparity.parity.compare import differences
from gradparity.training import backward, frugal, manual


def layers():
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(64, 64) for _ in range(20)))


def train_on_two(model, route):
    for seed in range(2):
        x = torch.randn(2, 64, generator=torch.Generator().manual_seed(seed))
        route(model(x).square().sum(), list(model.parameters()))


def peak_sets(route, before=lambda model: None):
    """The most bytes that are held at once over two microbatches, in sets of gradients."""
    model = layers()
    before(model)
    return peak_bytes(lambda: train_on_two(model, route)) / sum(p.nbytes for p in model.parameters())


def test_it_takes_no_more_memory_than_backward():
    assert peak_sets(frugal) <= peak_sets(backward)


def test_the_plain_manual_route_holds_a_second_set_of_gradients():
    assert peak_sets(manual) > peak_sets(backward) + 0.5


def test_hooks_are_gone_afterwards_even_when_autograd_raises():
    p, q = (nn.Parameter(torch.ones(2)) for _ in range(2))
    p.grad = torch.zeros(2)
    q.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        frugal((p * q).sum(), [p, q])
    assert not p._backward_hooks


@pytest.mark.parametrize("route", [manual, frugal])
def test_parameters_first_reached_by_a_later_microbatch_get_gradients_of_their_own(route):
    found = []
    for way in (backward, route):
        p, a, b = (nn.Parameter(torch.arange(3.0) + i) for i in range(3))
        way(p.square().sum(), [p, a, b])
        way((p * (a + b)).sum(), [p, a, b])
        way((p * (a + b)).sum(), [p, a, b])
        found.append([p.grad, a.grad, b.grad])
    for reference, candidate in zip(*found, strict=True):
        assert list(differences(reference, candidate)) == []
    assert found[1][1].data_ptr() != found[1][2].data_ptr()
