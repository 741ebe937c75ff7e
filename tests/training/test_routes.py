"""The manual routes against ``.backward()``: same bits, and the same promises about the tensors they leave."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradparity.parity.compare import tensor_differences
from gradparity.training import backward, frugal, manual

pytestmark = pytest.mark.processor

BY_HAND = (manual, frugal)
by_hand = pytest.mark.parametrize("by_hand", BY_HAND)


def parameter(*shape, dtype=torch.float32, seed=0):
    return nn.Parameter(torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)))


def share_memory(a, b):
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def gradients_by(route, make_parameters, loss, times):
    parameters = make_parameters()
    for _ in range(times):
        route(loss(*parameters), parameters)
    return [p.grad for p in parameters]


def assert_same(make_parameters, loss, times=3):
    """All routes leave the same gradients: None-ness, dtype, layout, shape, strides and bits."""
    left = gradients_by(backward, make_parameters, loss, times)
    for route in BY_HAND:
        right = gradients_by(route, make_parameters, loss, times)
        for a, b in zip(left, right, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert list(tensor_differences(a, b)) == []
    return right


def square_of_sum(a, b):
    return (a + b).square().sum()


def test_parameters_that_enter_as_a_sum_do_not_share_their_gradient():
    a, b = assert_same(lambda: [parameter(3, 4), parameter(3, 4, seed=1)], square_of_sum)
    assert not share_memory(a, b)


def test_autograd_grad_itself_returns_one_tensor_for_them():
    a, b = torch.autograd.grad(square_of_sum(p := parameter(3), q := parameter(3)), (p, q))
    assert a is b


def test_parameters_that_enter_as_a_sum_in_two_shapes_do_not_share_memory():
    a, b = assert_same(lambda: [parameter(3, 4), parameter(12, seed=1)], lambda a, b: square_of_sum(a, b.view(3, 4)))
    assert not share_memory(a, b)


@by_hand
def test_where_backward_itself_shares_memory_the_manual_route_does_not(by_hand):
    """https://github.com/pytorch/pytorch/issues/34082, open since 2020: autograd steals two views of one gradient."""

    def loss(a, b):
        return (a.flatten() + b.flatten()).square().sum()

    def make():
        return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))]

    once = torch.autograd.grad(loss(*(leaves := make())), leaves)
    assert all(torch.equal(g, torch.full((2, 3), 4.0)) for g in once)

    a, b = gradients_by(backward, make, loss, times=2)
    assert share_memory(a, b)
    assert torch.equal(a, torch.full((2, 3), 12.0)), "twice 4 is 8; in-place addition reached it through b as well"

    a, b = gradients_by(by_hand, make, loss, times=2)
    assert not share_memory(a, b)
    assert torch.equal(a, torch.full((2, 3), 8.0))
    assert torch.equal(b, torch.full((2, 3), 8.0))


def test_the_gradient_of_a_sum_is_not_left_expanded():
    assert torch.autograd.grad((p := parameter(3, 4)).sum(), p)[0].stride() == (0, 0)
    (g,) = assert_same(lambda: [parameter(3, 4)], lambda p: p.sum())
    assert g.stride() == (4, 1)
    g.add_(1)


def test_a_gradient_that_arrives_transposed_is_laid_out_as_its_parameter():
    def loss(p, q):
        return torch.einsum("ij,jk->ki", p, q).pow(3).sum()

    make = lambda: [parameter(3, 4), parameter(4, 5, seed=1)]  # noqa: E731 -- reads best beside loss
    parameters = make()
    raw = torch.autograd.grad(loss(*parameters), parameters)
    assert any(g.stride() != p.stride() for g, p in zip(raw, parameters, strict=True))
    assert_same(make, loss)


def test_a_channels_last_convolution_keeps_its_layout():
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)

    def make():
        return [nn.Parameter(parameter(4, 3, 3, 3).detach().contiguous(memory_format=torch.channels_last))]

    (g,) = assert_same(make, lambda w: nn.functional.conv2d(x, w).square().sum())
    assert g.is_contiguous(memory_format=torch.channels_last)
    assert_same(lambda: [parameter(4, 3, 3, 3)], lambda w: nn.functional.conv2d(x, w).square().sum())


def test_a_parameter_with_gaps_in_memory_gets_a_row_major_gradient():
    def make():
        return [nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).t()[::2])]

    (g,) = assert_same(make, lambda p: (p * p).sum())
    assert g.is_contiguous()


def test_an_unreached_parameter_keeps_none():
    _, unused = assert_same(lambda: [parameter(3), parameter(3)], lambda p, _: p.square().sum())
    assert unused is None


@by_hand
def test_an_unreached_parameter_keeps_the_gradient_it_had(by_hand):
    p, q = parameter(3), parameter(3)
    by_hand(square_of_sum(p, q), [p, q])
    kept = q.grad.clone()
    by_hand(p.square().sum(), [p, q])
    assert torch.equal(q.grad, kept)


@by_hand
def test_a_frozen_parameter_is_passed_over(by_hand):
    p, frozen = parameter(3), parameter(3).requires_grad_(False)
    by_hand(square_of_sum(p, frozen), [p, frozen])
    assert p.grad is not None
    assert frozen.grad is None


@by_hand
def test_a_tied_weight_counts_once(by_hand):
    p = parameter(4)
    once, twice = parameter(4), parameter(4)
    backward((p * p).sum(), [p])
    by_hand((once * once).sum(), [once, once])
    assert torch.equal(once.grad, p.grad)

    for q, g in zip([twice, twice], torch.autograd.grad((twice * twice).sum(), [twice, twice]), strict=True):
        q.grad = g if q.grad is None else q.grad + g
    assert torch.equal(twice.grad, 2 * p.grad)


def embedding_loss(indices):
    return lambda w: nn.functional.embedding(torch.tensor(indices), w, sparse=True).square().sum()


def test_a_sparse_gradient_stays_sparse():
    (g,) = assert_same(lambda: [parameter(10, 3)], embedding_loss([1, 4, 4]))
    assert g.is_sparse


@pytest.mark.parametrize("sparse_first", [True, False])
def test_sparse_and_dense_gradients_of_one_parameter_add_up(sparse_first):
    dense, sparse = (lambda w: w.pow(3).sum()), embedding_loss([1, 4])
    results = []
    for route in (backward, *BY_HAND):
        p = parameter(10, 3)
        for loss in (sparse, dense) if sparse_first else (dense, sparse):
            route(loss(p), [p])
        results.append(p.grad)
    for result in results[1:]:
        assert list(tensor_differences(results[0], result)) == []
        assert not result.is_sparse


def expanded_values(w):
    """Each row's gradient is one number, expanded: its values have stride 0."""
    return nn.functional.embedding(torch.tensor([1, 4, 4]), w, sparse=True).sum(0).square().sum()


def coalesced_by_a_hook(w):
    if not w._backward_hooks:
        w.register_hook(lambda g: g.coalesce())
    return embedding_loss([1, 4, 4])(w)


def coalesced_and_kept(w):
    if not w._backward_hooks:
        w.kept = []
        w.register_hook(lambda g: w.kept.append(g := g.coalesce()) or g)
    return embedding_loss([1, 4, 4])(w)


@pytest.mark.parametrize("loss", [expanded_values, coalesced_by_a_hook, coalesced_and_kept, embedding_loss([1])])
@pytest.mark.parametrize("times", [1, 2])
def test_a_sparse_gradient_has_the_layout_and_the_mark_that_autograd_leaves(loss, times):
    results = [gradients_by(route, lambda: [parameter(10, 3)], loss, times)[0] for route in (backward, *BY_HAND)]
    for g in results[1:]:
        assert list(tensor_differences(results[0], g)) == []
        assert g.is_coalesced() == results[0].is_coalesced()
        assert g._values().stride() == results[0]._values().stride()
        assert g._indices().stride() == results[0]._indices().stride()


def test_a_loss_scaler_can_unscale_the_sparse_gradient_of_a_sum():
    for route in (backward, *BY_HAND):
        w, scaler = parameter(10, 3), torch.amp.GradScaler("cpu", init_scale=8.0)
        optimizer = torch.optim.SGD([w], lr=0.1)
        route(scaler.scale(expanded_values(w)), [w])
        scaler.unscale_(optimizer)
        assert torch.equal(w.grad.to_dense().count_nonzero(), torch.tensor(6))


def sign_and_square(p):
    """The sign of a determinant has an undefined gradient: hooks of its leaves are called with None."""
    return torch.linalg.slogdet(p)[0] if p.grad is not None else p.square().sum()


def test_an_undefined_gradient_changes_nothing():
    called = []

    def make():
        p = nn.Parameter(torch.eye(3) + 0.1)
        p.register_hook(called.append)
        return [p]

    (g,) = assert_same(make, sign_and_square, times=3)
    assert None in called
    assert torch.equal(g, 2 * (torch.eye(3) + 0.1))


class ReturnsItsParameter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p, q):
        ctx.save_for_backward(q)
        return (p * q).sum()

    @staticmethod
    def backward(ctx, _):
        return *ctx.saved_tensors, None


@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad])
def test_a_gradient_has_no_graph_even_if_a_function_returns_one_that_has(grad_mode):
    def with_hook():
        p = parameter(3)
        p.register_hook(lambda g: (g.detach() * 2).requires_grad_())
        return [p, parameter(3, seed=1)]

    def without():
        return [parameter(3), parameter(3, seed=1)]

    for make, loss in ((without, ReturnsItsParameter.apply), (with_hook, square_of_sum)):
        left = []
        for route in (backward, *BY_HAND):
            parameters = make()
            for _ in range(3):
                value = loss(*parameters)
                with grad_mode():
                    route(value, parameters)
            left.append(parameters[0].grad)
            assert not parameters[0].grad.requires_grad
            assert parameters[0].grad.grad_fn is None
        assert all(torch.equal(left[0], g) for g in left[1:])


@by_hand
def test_a_hook_that_changes_in_place_what_another_parameter_shares_is_refused(by_hand):
    p, q = parameter(3), parameter(3)
    q.register_hook(lambda g: g.clamp_(max=1.0))
    with pytest.raises(RuntimeError, match="a hook changed in place a gradient that two parameters share"):
        by_hand((4 * (p + q)).sum(), [p, q])
    assert p.grad is q.grad is None
    assert [len(leaf._backward_hooks or ()) for leaf in (p, q)] == [0, 1]

    ours, _ = torch.autograd.grad((4 * (p + q)).sum(), [p, q])
    assert torch.equal(ours, torch.ones(3)), "where .backward() leaves 4 in p"


@pytest.mark.parametrize("loss", [lambda a, b: (4 * (a + b.exp())).sum(), lambda a, b: (4 * (a * b)).sum()])
def test_a_hook_in_place_on_a_gradient_of_its_own_is_not_refused(loss):
    def make():
        parameters = [parameter(3), parameter(3, seed=1)]
        parameters[1].register_hook(lambda g: g.clamp_(max=1.0))
        return parameters

    assert_same(make, loss)


def test_a_hook_that_returns_a_new_gradient_of_a_sum_is_not_refused():
    def make():
        parameters = [parameter(3), parameter(3, seed=1)]
        parameters[1].register_hook(lambda g: g.clamp(max=1.0))
        return parameters

    assert_same(make, lambda a, b: (4 * (a + b)).sum())


@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="this torch has no grad_dtype")
@pytest.mark.parametrize("accumulated", [torch.float32, None])
@pytest.mark.parametrize("way", [lambda p: (p.float() * 1.001).sum(), lambda p: p.float().t().pow(2).sum()])
def test_a_gradient_may_have_another_dtype_than_its_parameter(accumulated, way):
    kept = []

    def make():
        p = parameter(3, 4, dtype=torch.bfloat16)
        p.grad_dtype = accumulated
        p.register_hook(kept.append)  # so it is copied
        return [p]

    (g,) = assert_same(make, way)
    assert accumulated is None or g.dtype == accumulated


def test_complex_parameters_get_the_same_bits():
    def make():
        return [parameter(3, 2, dtype=torch.complex64), parameter(2, 3, dtype=torch.complex64, seed=1)]

    assert_same(make, lambda a, b: (a * a.conj()).real.sum() + (a @ b).abs().sum())


@by_hand
def test_a_leaf_as_loss_and_parameters_without_memory_work_as_well(by_hand):
    p = nn.Parameter(torch.tensor(2.0))
    by_hand(p, [p])
    by_hand(p, [p])
    assert p.grad == 2
    for empty in (nn.Parameter(torch.ones(0, 3)), nn.Parameter(torch.ones(2, device="meta"))):
        others = [nn.Parameter(empty.detach().clone()) for _ in range(2)]
        for _ in range(2):
            by_hand(sum(q.sum() for q in (empty, *others)), [empty, *others])
        assert all(q.grad.shape == empty.shape for q in (empty, *others))


class ReturnsWhatItSaved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p, x):
        ctx.save_for_backward(x)
        return (p * x).sum()

    @staticmethod
    def backward(ctx, _):
        return *ctx.saved_tensors, None


@by_hand
def test_a_tensor_that_somebody_else_holds_is_not_taken_for_a_gradient(by_hand):
    x = torch.randn(3)
    p = parameter(3)
    by_hand(ReturnsWhatItSaved.apply(p, x), [p])
    assert not share_memory(p.grad, x)

    kept = []
    q = parameter(3)
    q.register_hook(kept.append)
    by_hand(q.square().sum(), [q])
    assert not share_memory(q.grad, kept[0])


def test_a_gradient_that_nobody_else_holds_is_not_copied():
    """Copying always would be safe too, and would cost another set of gradients in memory."""
    made = []

    class Remembers(torch.autograd.Function):
        @staticmethod
        def forward(ctx, p):
            return p.sum()

        @staticmethod
        def backward(ctx, g):
            made.append((fresh := torch.full((3, 4), 2.0)).data_ptr())
            return fresh

    for route in (backward, *BY_HAND):
        p = parameter(3, 4)
        route(Remembers.apply(p), [p])
        assert p.grad.data_ptr() == made[-1]


@by_hand
def test_later_gradients_are_added_in_place(by_hand):
    p = parameter(3)
    by_hand(p.square().sum(), [p])
    first = p.grad
    by_hand(p.square().sum(), [p])
    assert p.grad is first


def test_hooks_on_parameters_act_on_both_routes():
    def make():
        p = parameter(3)
        p.register_hook(lambda g: g * 3)
        return [p]

    (g,) = assert_same(make, lambda p: p.square().sum(), times=1)
    assert torch.equal(g, 6 * parameter(3).detach())


OPS = {
    "sum": lambda a, b: (a + b).sum(),
    "square": lambda a, b: (a + b).square().sum(),
    "product": lambda a, b: (a * b).sum(),
    "transposed": lambda a, b: (a.t() @ b).pow(2).sum(),
    "einsum": lambda a, b: torch.einsum("ij,kj->ki", a, b).pow(2).sum(),
    "one unused": lambda a, _: a.exp().sum(),
    "twice": lambda a, b: (a + a + b).pow(2).sum(),
    "stacked": lambda a, b: torch.cat([a, b]).pow(2).sum(),
    "expanded": lambda a, b: (a[:1].expand_as(b) + b).pow(2).sum(),
}

LAYOUTS = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.t().contiguous().t(),
    "gaps": lambda t: t.repeat_interleave(2, dim=1)[:, ::2],
    "gaps, transposed": lambda t: t.t().repeat_interleave(2, dim=1)[:, ::2].t(),
}


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=3),
    st.tuples(st.sampled_from(sorted(LAYOUTS)), st.sampled_from(sorted(LAYOUTS))),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_both_routes_leave_the_same_gradients_for_any_mix_of_layouts_and_ways_to_enter(
    ops, layouts, shape, times, dtype
):
    def make():
        return [
            nn.Parameter(LAYOUTS[layout](parameter(*shape, dtype=dtype, seed=seed).detach()))
            for seed, layout in enumerate(layouts)
        ]

    def loss(a, b):
        return sum(OPS[op](a, b) for op in ops)

    for (i, a), (j, b) in itertools.combinations(enumerate(assert_same(make, loss, times)), 2):
        assert a is None or b is None or "stacked" in ops or not share_memory(a, b), (i, j)
