"""The frugal route needs the memory of ``.backward()``; that its gradients are the same is in ``test_routes``."""

import pytest
import torch
from torch import nn

from gradparity.parity.compare import tensor_differences
from gradparity.studies.benchmark.memory import peak_bytes
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
        assert list(tensor_differences(reference, candidate)) == []
    assert found[1][1].data_ptr() != found[1][2].data_ptr()


def test_a_sparse_gradient_that_comes_late_has_the_mark_that_autograd_leaves():
    marks = []
    for way in (backward, frugal):
        p, w = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(5, 3))
        w.register_hook(lambda g: g.coalesce())
        way(p.sum(), [p, w])
        way((p * nn.functional.embedding(torch.tensor([1, 2, 2]), w, sparse=True)).sum(), [p, w])
        marks.append(w.grad.is_coalesced())
    assert marks == [False, False]


@pytest.mark.parametrize("before", [True, False])
def test_a_hook_in_place_on_a_shared_gradient_on_a_later_microbatch_spares_the_other(before):
    left = []
    for way in (backward, frugal):
        p, a, b = (nn.Parameter(torch.ones(2)) for _ in range(3))
        (a if before else b).register_hook(lambda g: g.clamp_(max=1.0))
        way(p.sum(), [p, a, b])
        way((4 * (a + b)).sum(), [p, a, b])
        left.append([p.grad, a.grad, b.grad])
    for reference, candidate in zip(*left, strict=True):
        assert list(tensor_differences(reference, candidate)) == []


def test_what_was_added_before_autograd_raised_stays_as_after_backward():
    left = []
    for way in (backward, frugal):
        p, q = (nn.Parameter(torch.ones(2)) for _ in range(2))
        p.grad, q.grad = torch.zeros(2), torch.zeros(2)
        q.register_hook(lambda g: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            way((p.exp() + q.exp().exp()).sum(), [p, q])
        left.append([p.grad, q.grad])
    for reference, candidate in zip(*left, strict=True):
        assert torch.equal(reference, candidate)

    p, q = (nn.Parameter(torch.ones(2)) for _ in range(2))
    q.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        manual((p.exp() + q.exp().exp()).sum(), [p, q])
    assert p.grad is None, "where the plain manual route adds nothing"
