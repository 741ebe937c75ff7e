"""The list in ``routes`` of what the routes by hand do not run: each line, and beside it something near that runs."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import register_multi_grad_hook

from gradparity.training import backward, frugal, manual

ROUTES = (backward, manual, frugal)


def ran(route, make):
    """What the hooks that ``make`` registers have noted, in a second microbatch, where the routes differ most."""
    noted = []
    loss, parameters, *alive = make(noted)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    route(loss, parameters)
    del alive
    return noted


def by_backward_alone(make):
    return ran(backward, make) != [] and ran(manual, make) == ran(frugal, make) == []


def by_all(make):
    return ran(backward, make) == ran(manual, make) == ran(frugal, make) != []


def parameter():
    return nn.Parameter(torch.ones(2))


def test_post_accumulate_hooks_and_so_an_optimizer_inside_the_backward():
    def make(noted):
        p = parameter()
        p.register_post_accumulate_grad_hook(noted.append)
        return p.sum(), [p]

    def tensor_hook(noted):
        p = parameter()
        p.register_hook(noted.append)
        return p.sum(), [p]

    assert by_backward_alone(make)
    assert [len(ran(route, tensor_hook)) for route in ROUTES] == [1, 1, 1]


@pytest.mark.parametrize("register", ["register_hook", "register_prehook"])
def test_hooks_of_the_node_that_accumulates(register):
    def make(noted):
        p = parameter()
        node = p.view_as(p).grad_fn.next_functions[0][0]
        getattr(node, register)(lambda *_: noted.append(1))
        return p.sum(), [p], node

    def of_a_node_before_it(noted):
        p = parameter()
        y = 2 * p
        getattr(y.grad_fn, register)(lambda *_: noted.append(1))
        return y.sum(), [p]

    assert by_backward_alone(make)
    assert by_all(of_a_node_before_it)


def test_multi_grad_hooks_that_wait_for_a_parameter_make_autograd_raise():
    def make(noted):
        p, q = parameter(), parameter()
        return (p * q).sum(), [p, q], register_multi_grad_hook((p, q), lambda _: noted.append(1))

    def of_tensors_inside(noted):
        p, q = parameter(), parameter()
        a, b = 2 * p, 3 * q
        return (a * b).sum(), [p, q], register_multi_grad_hook((a, b), lambda _: noted.append(1))

    assert ran(backward, make) == [1]
    for route in (manual, frugal):
        with pytest.raises(RuntimeError, match="leaf node"):
            ran(route, make)
    assert by_all(of_tensors_inside)


def test_a_full_backward_hook_of_a_module_whose_only_differentiable_input_is_a_leaf():
    def make(noted, before):
        layer = nn.Linear(2, 2)
        layer.register_full_backward_hook(lambda *_: noted.append(1))
        x = torch.ones(2, requires_grad=True)
        return layer(before(x)).sum(), [*layer.parameters(), *before.parameters()]

    assert by_backward_alone(lambda noted: make(noted, nn.Identity()))
    assert by_all(lambda noted: make(noted, nn.Linear(2, 2)))


def test_the_gradient_of_a_leaf_that_is_no_parameter():
    def filled(route):
        x, p = torch.ones(2, requires_grad=True), parameter()
        route((x * p).sum(), [p])
        return x.grad is not None

    assert [filled(route) for route in ROUTES] == [True, False, False]


def test_a_hook_inside_the_graph_that_changes_a_shared_gradient_in_place():
    def left(route):
        p, q = parameter(), parameter()
        inside = q * 1
        inside.register_hook(lambda g: g.clamp_(max=1.0))
        route((4 * (p + inside)).sum(), [p, q])
        return p.grad.tolist(), q.grad.tolist()

    assert left(backward) == ([4.0, 4.0], [1.0, 1.0])
    assert left(manual) == ([1.0, 1.0], [1.0, 1.0])
