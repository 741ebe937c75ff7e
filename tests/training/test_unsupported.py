"""The routes by hand refuse what ``autograd.grad`` cannot serve, in one sentence and before they write anything."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from gradparity.parity.compare import tensor_differences
from gradparity.training import backward, frugal, manual
from gradparity.training.unsupported import nodes_below

BY_HAND = pytest.mark.parametrize("by_hand", [manual, frugal])


class Recomputed(torch.autograd.Function):
    """A reentrant checkpoint as people write it: its backward runs the forward again, and a backward through it."""

    @staticmethod
    def forward(ctx, x, body):
        ctx.save_for_backward(x)
        ctx.body = body
        with torch.no_grad():
            return body(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x = ctx.saved_tensors[0].detach().requires_grad_()

        def again():
            with torch.enable_grad():
                ctx.body(x).backward(g)

        again()
        return x.grad, None


def by_torch(body, x):
    return checkpoint(body, x, use_reentrant=True)


def by_hand_written(body, x):
    return Recomputed.apply(x, body)


KINDS = pytest.mark.parametrize("through", [by_torch, by_hand_written])
WITH_GRADIENTS = pytest.mark.parametrize("already", [False, True])


def layers(already):
    torch.manual_seed(0)
    body, head = nn.Linear(4, 4), nn.Linear(4, 1)
    parameters = [*body.parameters(), *head.parameters()]
    for p in parameters if already else ():
        p.grad = torch.ones_like(p)
    return body, head, parameters


def refused(by_hand, loss, parameters, match):
    before = [None if p.grad is None else p.grad.clone() for p in parameters]
    with pytest.raises(RuntimeError, match=match) as caught:
        by_hand(loss, parameters)
    assert "\n" not in str(caught.value)
    for p, g in zip(parameters, before, strict=True):
        assert p.grad is None if g is None else torch.equal(p.grad, g)


@BY_HAND
@KINDS
@WITH_GRADIENTS
def test_a_checkpoint_that_leads_to_no_parameter_is_refused(by_hand, through, already):
    body, head, parameters = layers(already)
    loss = head(through(body, torch.ones(3, 4).requires_grad_())).sum()
    refused(by_hand, loss, parameters, "runs a backward inside its own")
    loss.backward()
    assert body.weight.grad is not None, "which is what would have been left out"


@BY_HAND
@KINDS
@WITH_GRADIENTS
def test_a_weight_used_inside_and_outside_a_checkpoint_is_refused_though_it_gets_a_gradient(by_hand, through, already):
    body, head, parameters = layers(already)
    x = torch.ones(3, 4)
    loss = head(through(body, x.clone().requires_grad_()) + body(x)).sum()
    part = torch.autograd.grad(loss, parameters, retain_graph=True)
    assert all(g is not None for g in part)
    refused(by_hand, loss, parameters, "runs a backward inside its own")


@BY_HAND
@WITH_GRADIENTS
def test_the_checkpoint_of_torch_is_refused_before_it_raises_halfway(by_hand, already):
    body, head, parameters = layers(already)
    loss = head(checkpoint(body, body(torch.ones(3, 4)), use_reentrant=True)).sum()
    refused(by_hand, loss, parameters, "use_reentrant=False")


def test_a_backward_inside_a_backward_that_is_reached_is_not_refused():
    """It fills the gradients of what is inside by itself, on every route."""
    left = []
    for route in (backward, manual, frugal):
        body, head, parameters = layers(already=False)
        stem = nn.Linear(4, 4)
        with torch.no_grad():
            stem.weight.fill_(0.5)
            stem.bias.fill_(0.25)
        parameters += stem.parameters()
        for _ in range(3):
            x = stem(torch.ones(3, 4))
            route(head(Recomputed.apply(x, body)).square().sum(), parameters)
        left.append([p.grad for p in parameters])
    for gradients in left[1:]:
        for a, b in zip(left[0], gradients, strict=True):
            assert list(tensor_differences(a, b)) == []


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


@BY_HAND
def test_other_checkpoints_and_functions_are_not_refused(by_hand):
    body, head, parameters = layers(already=False)
    x = Doubled.apply(torch.ones(3, 4).requires_grad_())  # leads to no parameter, and does no harm
    by_hand(head(checkpoint(body, x, use_reentrant=False)).sum(), parameters)
    assert all(p.grad is not None for p in parameters)


@BY_HAND
def test_a_compiled_model_is_not_refused(by_hand):
    body, head, parameters = layers(already=False)
    by_hand(torch.compile(nn.Sequential(body, head), backend="aot_eager")(torch.ones(3, 4)).sum(), parameters)
    assert all(p.grad is not None for p in parameters)


STRANGE = {
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "csc": lambda: torch.eye(3).to_sparse_csc(),
    "coo": lambda: torch.eye(3).to_sparse(),
    "mkldnn": lambda: torch.eye(3).to_mkldnn(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@BY_HAND
@WITH_GRADIENTS
@pytest.mark.parametrize("kind", STRANGE)
def test_a_parameter_that_is_not_plain_and_dense_is_refused(by_hand, already, kind):
    plain = nn.Parameter(torch.ones(3))
    plain.grad = torch.ones(3) if already else None
    strange = nn.Parameter(STRANGE[kind]())
    refused(by_hand, plain.sum(), [plain, strange], "plain dense parameters")
    strange.requires_grad_(False)
    by_hand(plain.sum(), [plain, strange])  # a frozen one is passed over


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@BY_HAND
def test_a_dtensor_is_refused(by_hand):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        p = nn.Parameter(distribute_tensor(torch.ones(2), init_device_mesh("cpu", (1,))))
        refused(by_hand, p.sum().to_local(), [p], "one of DTensor use .backward")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("route", [backward, manual, frugal])
def test_a_loss_without_gradient_raises_on_every_route(route):
    for parameters in ([], [nn.Parameter(torch.ones(2))]):
        with pytest.raises(RuntimeError, match="require"):
            route(torch.ones(2).sum(), parameters)


@pytest.mark.parametrize("route", [backward, manual, frugal])
def test_nothing_to_train_is_no_error(route):
    x = torch.ones(2, requires_grad=True)
    route(x.sum(), [])
    route(x.sum(), [nn.Parameter(torch.ones(2), requires_grad=False)])


def test_every_node_of_a_graph_is_visited_once():
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    for _ in range(20):
        y = y * y  # a million paths
    assert len(nodes_below(y.grad_fn)) == 22
    assert nodes_below(x.grad_fn) == set()
