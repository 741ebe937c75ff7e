import gc
import importlib.util
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gradparity.studies import calculus_tour
from gradparity.studies.calculus_tour import vjp_by_backward, vjp_by_grad
from gradparity.studies.calculus_tour.known_functions import (
    Waves,
    scalar,
    scalar_gradient,
    scalar_hessian,
    unstacked,
    vector,
    vector_jacobian,
)


class Way(NamedTuple):
    gradients: Callable[..., tuple[Tensor, ...]]
    jacobians: Callable[..., tuple[Tensor, ...]]
    hessians: Callable[..., tuple[Tensor, ...]]


def by_vjp(vjp: calculus_tour.VJP) -> Way:
    return Way(
        *(partial(d, vjp=vjp) for d in (calculus_tour.gradients, calculus_tour.jacobians, calculus_tour.hessians))
    )


WAYS = {
    "grad": by_vjp(vjp_by_grad),
    "backward": by_vjp(vjp_by_backward),
    "func": Way(calculus_tour.gradients_by_func, calculus_tour.jacobians_by_func, calculus_tour.hessians_by_func),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(shape, generator=generator(seed), dtype=torch.float64) - 1


def close(have: Tensor, want: Tensor) -> None:
    """Float64 rounds at 1.1e-16; the figures stay below 100 and take some tens of roundings: 1e-12 is ample."""
    torch.testing.assert_close(have, want, rtol=1e-12, atol=1e-12)


def slow_jacobian(f: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-5) -> Tensor:
    """Obviously correct, but slow and coarse: central differences, column by column."""
    steps = h * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.stack([(f(x + step) - f(x - step)) / (2 * h) for step in steps], dim=-1)


X = uniform(50, 2)


@st.composite
def waves_and_points(draw: st.DrawFn) -> tuple[Waves, Tensor]:
    n, inputs, outputs, terms = (draw(st.integers(1, top)) for top in (4, 4, 3, 4))
    seed = draw(st.integers(0, 2**32))
    return Waves.draw(outputs, inputs, terms, generator(seed)), uniform(n, inputs, seed=seed + 1)


# The three ways against the formulas


@each_way
def test_the_gradient_is_the_one_derived_by_hand(way: Way) -> None:
    (g,) = way.gradients(scalar, X)
    close(g, scalar_gradient(X))
    gx, gy = way.gradients(unstacked(scalar), *X.unbind(dim=1))
    close(torch.stack((gx, gy), dim=1), scalar_gradient(X))


@each_way
def test_the_jacobian_is_the_one_derived_by_hand(way: Way) -> None:
    (j,) = way.jacobians(vector, X)
    close(j, vector_jacobian(X))
    jx, jy = way.jacobians(unstacked(vector), *X.unbind(dim=1))
    close(torch.stack((jx, jy), dim=2), vector_jacobian(X))


@each_way
def test_the_second_derivative_is_the_one_derived_by_hand(way: Way) -> None:
    (h,) = way.hessians(scalar, X)
    close(h, scalar_hessian(X))
    grad_xx, grad_yy = way.hessians(unstacked(scalar), *X.unbind(dim=1))
    close(grad_xx, scalar_hessian(X)[:, 0, 0])
    close(grad_yy, scalar_hessian(X)[:, 1, 1])


@each_way
@settings(max_examples=100, deadline=None)
@given(case=waves_and_points())
def test_random_functions_have_the_derivatives_of_their_closed_form(way: Way, case: tuple[Waves, Tensor]) -> None:
    waves, x = case
    columns = x.unbind(dim=1)

    def last(x: Tensor) -> Tensor:
        return waves.value(x)[:, -1]

    jacobian, hessian = waves.jacobian(x), waves.hessian(x)[:, -1]
    close(way.gradients(last, x)[0], jacobian[:, -1])
    close(torch.stack(way.gradients(unstacked(last), *columns), dim=1), jacobian[:, -1])
    close(way.jacobians(waves.value, x)[0], jacobian)
    close(torch.stack(way.jacobians(unstacked(waves.value), *columns), dim=2), jacobian)
    close(way.hessians(last, x)[0], hessian)
    close(torch.stack(way.hessians(unstacked(last), *columns), dim=1), hessian.diagonal(dim1=1, dim2=2))


@settings(max_examples=100, deadline=None)
@given(case=waves_and_points())
def test_backward_and_autograd_grad_give_the_same_bits(case: tuple[Waves, Tensor]) -> None:
    waves, x = case
    for f, derive in (
        (lambda x: waves.value(x)[:, 0], calculus_tour.gradients),
        (waves.value, calculus_tour.jacobians),
        (lambda x: waves.value(x)[:, 0], calculus_tour.hessians),
    ):
        (by_grad,), (by_backward,) = derive(f, x, vjp=vjp_by_grad), derive(f, x, vjp=vjp_by_backward)
        assert torch.equal(by_grad, by_backward)


# The formulas against an oracle that shares nothing with them


@settings(max_examples=100, deadline=None)
@given(case=waves_and_points())
def test_finite_differences_confirm_the_closed_form(case: tuple[Waves, Tensor]) -> None:
    waves, x = case
    torch.testing.assert_close(slow_jacobian(waves.value, x), waves.jacobian(x), rtol=0, atol=1e-7)
    torch.testing.assert_close(slow_jacobian(waves.jacobian, x), waves.hessian(x), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("f", "derivative"), [(scalar, scalar_gradient), (scalar_gradient, scalar_hessian), (vector, vector_jacobian)]
)
def test_finite_differences_confirm_the_hand_derivation(
    f: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor]
) -> None:
    torch.testing.assert_close(slow_jacobian(f, X), derivative(X), rtol=0, atol=1e-7)


@pytest.mark.parametrize("f", [scalar, vector, Waves.draw(3, 2, 4, generator()).value])
def test_gradcheck_confirms_autograd_to_second_order(f: Callable[[Tensor], Tensor]) -> None:
    x = X[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x)


def test_the_generator_alone_decides_what_is_drawn() -> None:
    one, same, other = (Waves.draw(3, 2, 4, generator(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(vars(one)[name], vars(same)[name]) for name in "abcqm")
    assert not any(torch.equal(vars(one)[name], vars(other)[name]) for name in "abcqm")
    assert -1 <= one.q.min() < 0 < one.q.max() < 1


# The checks can fail


@each_way
def test_one_flipped_sign_in_a_formula_is_caught(way: Way) -> None:
    x, y = X.unbind(dim=1)
    flipped = torch.stack((y - y**2 * torch.cos(x * y**2), scalar_gradient(X)[:, 1]), dim=1)
    with pytest.raises(AssertionError):
        close(way.gradients(scalar, X)[0], flipped)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(slow_jacobian(scalar, X), flipped, rtol=0, atol=1e-7)


@each_way
def test_a_relative_error_of_1e_11_or_a_transposition_is_caught(way: Way) -> None:
    waves = Waves.draw(2, 2, 4, generator())
    (j,) = way.jacobians(waves.value, X)
    for wrong in (waves.jacobian(X) * (1 + 1e-11), waves.jacobian(X).mT, waves.jacobian(X)[:, :1]):
        with pytest.raises(AssertionError):
            close(j, wrong)


# The traps


def test_without_create_graph_the_second_derivative_raises_and_with_it_is_right() -> None:
    x, y = (column.clone().requires_grad_() for column in X.unbind(dim=1))
    out = unstacked(scalar)(x, y)
    ones = torch.ones_like(out)
    grad_x, _ = torch.autograd.grad(out, (x, y), ones, retain_graph=True)
    with pytest.raises(RuntimeError, match="element 0 of tensors does not require grad and does not have a grad_fn"):
        torch.autograd.grad(grad_x, x, ones)
    grad_x, _ = torch.autograd.grad(out, (x, y), ones, create_graph=True)
    close(torch.autograd.grad(grad_x, x, ones)[0], scalar_hessian(X)[:, 0, 0])


def test_where_samples_interact_the_seed_of_ones_gives_column_sums() -> None:
    def squared_deviation(x: Tensor) -> Tensor:
        return (x - x.mean()) ** 2

    x = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    full = torch.func.jacrev(squared_deviation)(x)
    column_sums = torch.tensor([-4.0, -2.0, 0.0, 6.0], dtype=torch.float64)
    assert torch.equal(full.sum(dim=0), column_sums)
    assert torch.equal(full.diagonal(), 0.75 * column_sums), "each sample is a quarter of its own mean"
    for name, (g,) in ((name, way.gradients(squared_deviation, x)) for name, way in WAYS.items()):
        # torch.func sees one sample, which is its own mean: that the ways disagree gives the trap away.
        assert torch.equal(g, torch.zeros_like(x) if name == "func" else column_sums)


def test_backward_twice_doubles_the_gradient_and_autograd_grad_twice_repeats_it() -> None:
    x = X.clone().requires_grad_()
    y = scalar(x)
    once, again = (torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, again)
    assert x.grad is None
    for _ in range(2):
        y.backward(torch.ones_like(y), retain_graph=True)
    assert torch.equal(x.grad, 2 * once)
    assert once.abs().min() > 0


def test_an_unused_input_raises_or_is_none_in_pytorch() -> None:
    x, unused = X.clone().requires_grad_(), X.clone().requires_grad_()
    y = scalar(x).sum()
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        torch.autograd.grad(y, (x, unused), retain_graph=True)
    assert torch.autograd.grad(y, (x, unused), retain_graph=True, allow_unused=True)[1] is None
    y.backward(inputs=(x, unused))
    assert unused.grad is None


@each_way
def test_an_input_that_does_not_affect_the_output_has_derivative_zero(way: Way) -> None:
    x, y = X.unbind(dim=1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    w = nn.Parameter(torch.ones(1))
    for f, gradient, second in (
        (lambda x, y: x**2, (2 * x, zero), (2 * one, zero)),  # y is not used
        (lambda x, y: x**2 + 3 * y, (2 * x, 3 * one), (2 * one, zero)),  # y's derivative is constant
        (lambda x, y: torch.ones(len(x)), (zero, zero), (zero, zero)),  # nothing is used
        (lambda x, y: w.expand(len(x)), (zero, zero), (zero, zero)),  # only a parameter is
        (lambda x, y: x * y, (y, x), (zero, zero)),  # each derivative depends on the other input
        (lambda x, y: x, (one, zero), (zero, zero)),  # the output is the input
    ):
        for have, want in ((way.gradients(f, x, y), gradient), (way.hessians(f, x, y), second)):
            assert all(map(torch.equal, have, want))
            assert len(have) == len(want)
    for j in way.jacobians(lambda x, y: torch.ones(len(x), 3), x, y):
        assert torch.equal(j, torch.zeros(len(x), 3, dtype=x.dtype))


# What our functions promise beyond the figures


@each_way
def test_the_callers_tensors_and_parameters_are_left_as_they_were(way: Way) -> None:
    marker = uniform(50, 2, seed=1)
    leaf = X.clone().requires_grad_()
    leaf.grad = marker.clone()
    layer = nn.Linear(2, 1, dtype=torch.float64)
    for derivative in (
        way.gradients(lambda x: layer(x).squeeze(1), leaf),
        way.jacobians(layer, leaf),
        way.hessians(lambda x: layer(x).sin().squeeze(1), leaf),
    ):
        assert torch.equal(leaf.grad, marker)
        assert all(p.grad is None for p in layer.parameters())
        assert not derivative[0].requires_grad


@each_way
def test_derivatives_share_no_memory(way: Way) -> None:
    x, y = X.unbind(dim=1)
    for derivatives in (
        way.gradients(lambda x, y: x + y, x, y),
        way.jacobians(lambda x, y: torch.stack((x + y, x + y), dim=1), x, y),
        way.hessians(lambda x, y: (x + y) ** 2, x, y),
    ):
        before = derivatives[1].clone()
        derivatives[0].mul_(2)
        assert torch.equal(derivatives[1], before)


@each_way
def test_gradients_work_where_the_caller_has_switched_them_off(way: Way) -> None:
    with torch.no_grad():
        close(way.gradients(scalar, X)[0], scalar_gradient(X))
        close(way.jacobians(vector, X)[0], vector_jacobian(X))
        close(way.hessians(scalar, X)[0], scalar_hessian(X))


@each_way
def test_one_tensor_passed_twice_is_two_inputs(way: Way) -> None:
    x = X[:, 0]
    assert all(torch.equal(g, x) for g in way.gradients(lambda x, y: x * y, x, x))


@each_way
def test_shape_and_dtype_are_those_of_each_input(way: Way) -> None:
    x, y = X[:, 0].float(), uniform(50, 3)
    gx, gy = way.gradients(lambda x, y: x * y.prod(dim=1), x, y)
    jx, jy = way.jacobians(lambda x, y: x[:, None] * y[:, :2], x, y)
    hx, hy = way.hessians(lambda x, y: x * y.prod(dim=1), x, y)
    assert [t.shape for t in (gx, jx, hx)] == [(50,), (50, 2), (50,)]
    assert [t.shape for t in (gy, jy, hy)] == [(50, 3), (50, 2, 3), (50, 3, 3)]
    assert {t.dtype for t in (gx, jx, hx)} == {torch.float32}
    assert {t.dtype for t in (gy, jy, hy)} == {torch.float64}


def test_a_gradient_takes_one_vjp_and_a_jacobian_one_for_each_output() -> None:
    seeds: list[Tensor] = []

    def counted(output: Tensor, inputs: tuple[Tensor, ...], seed: Tensor, create_graph: bool = False):
        seeds.append(seed)
        return vjp_by_grad(output, inputs, seed, create_graph)

    calculus_tour.gradients(scalar, X, vjp=counted)
    assert len(seeds) == 1
    calculus_tour.jacobians(vector, X, vjp=counted)
    assert len(seeds) == 1 + 3


def test_second_order_by_backward_gives_no_warning_and_leaves_no_reference_cycle() -> None:
    alive: list[weakref.ref[Tensor]] = []

    def watched(x: Tensor) -> Tensor:
        alive.append(weakref.ref(x))
        return scalar(x)

    torch.set_warn_always(True)  # else PyTorch warns once a process, which an earlier test may have used up
    gc.disable()
    try:
        calculus_tour.hessians(watched, X, vjp=vjp_by_backward)
        assert alive[0]() is None
        y = scalar(X.clone().requires_grad_()).sum()
        with pytest.warns(UserWarning, match="reference cycle"):
            y.backward(create_graph=True)
    finally:
        gc.enable()
        torch.set_warn_always(False)


def test_a_warning_from_the_function_itself_reaches_the_caller() -> None:
    class Warns(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            warnings.warn("from the function", stacklevel=1)
            return g

    with pytest.warns(UserWarning, match="from the function"):
        calculus_tour.gradients(Warns.apply, X[:, 0], vjp=vjp_by_backward)


@each_way
@pytest.mark.parametrize(
    ("f", "inputs", "sentence"),
    [
        (scalar, (), "there are no inputs to differentiate by; pass at least one tensor"),
        (scalar, (X.int(),), r"input 0 is torch.int32, not floating point; convert it with .double\(\)"),
        (scalar, (X.cfloat(),), "input 0 is torch.complex64"),
        (scalar, (X[0, 0],), r"input 0 has shape \[\]; give it N >= 1 samples"),
        (scalar, (X[:0],), r"input 0 has shape \[0, 2\]; give it N >= 1 samples"),
        (unstacked(scalar), (X[:, 0], X[:3, 1]), "input 1 has 3 samples, input 0 has 50; they must agree"),
        (lambda x: scalar(x).sum(), (X,), r"f returned shape \[\] for N = 50; gradients and hessians need \[N\]"),
        (lambda x: scalar(x)[:3], (X,), r"f returned shape \[3\] for N = 50"),
        (lambda x: vector(x)[:3], (X,), r"f returned shape \[3, 3\] for N = 50"),
        (lambda x: vector(x)[..., None], (X,), r"f returned shape \[50, 3, 1\] for N = 50"),
        (lambda x: scalar(x) > 0, (X,), "f returned torch.bool; it must return one floating point tensor"),
        (lambda x: (scalar(x),), (X,), "f returned tuple; it must return one floating point tensor"),
    ],
)
def test_bad_input_is_refused_with_one_sentence(
    way: Way, f: Callable[..., Tensor], inputs: tuple[Tensor, ...], sentence: str
) -> None:
    for derive in way:
        with pytest.raises(ValueError, match=sentence):
            derive(f, *inputs)


@each_way
def test_a_function_of_the_wrong_rank_is_refused(way: Way) -> None:
    for derive, f in ((way.gradients, vector), (way.jacobians, scalar), (way.hessians, vector)):
        with pytest.raises(ValueError, match=r"gradients and hessians need \[N\], jacobians need \[N, out\]"):
            derive(f, X)


@each_way
def test_inference_mode_is_refused_for_it_would_give_zeros(way: Way) -> None:
    with torch.inference_mode():
        made_inside = X.clone()
        with pytest.raises(ValueError, match="inference mode records no graph"):
            way.gradients(scalar, X)
    with pytest.raises(ValueError, match="clone the inputs made in it"):
        way.gradients(scalar, made_inside)


def test_torch_func_refuses_a_function_that_holds_data_of_the_whole_batch() -> None:
    with pytest.raises(ValueError, match=r"f returned shape \[50\] for N = 1"):
        calculus_tour.gradients_by_func(lambda x: scalar(x) * X[:, 0], X)


# The tour


@pytest.fixture
def tour() -> ModuleType:
    path = Path(__file__).parents[3] / "experiments" / "calculus_tour.py"
    spec = importlib.util.spec_from_file_location("calculus_tour", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("n", [1, 40])
def test_the_tour_ends_with_a_verdict_from_its_figures(
    tour: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, n: int
) -> None:
    assert tour.main(["--n", str(n), "--seed", "3", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"nonzero rows: 1 of {n}" in out
    assert '"element 0 of tensors does not require grad and does not have a grad_fn"' in out
    assert "appears to not have been used in the graph" in out
    assert "43 of 43 errors are within 1e-12" in out
    assert "agree bit for bit in 12 of 12 rows" in out
    assert "\x1b" not in out, "no colour where there is no terminal"


def test_the_tour_fails_on_a_wrong_formula(
    tour: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tour, "scalar_hessian", lambda x: -scalar_hessian(x))
    assert tour.main(["--n", "40", "--output", str(tmp_path)]) == 1
    # step 6, and the Hessian stacked and apart in three ways
    assert "36 of 43 errors are within 1e-12" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["--n", "0"], ["--n", "-3"], ["--n", "two"], ["--n", "1000001"], ["--seed", "-1"], ["--seed", str(2**63)]]
)
def test_the_tour_refuses_bad_arguments_in_one_line(
    tour: ModuleType, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert tour.main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
