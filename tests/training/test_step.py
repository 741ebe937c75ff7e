"""The reference step against oracles that share nothing with it: two routes with one bug would agree perfectly."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import oracle
from gradparity import build
from gradparity.config import ClipConfig, OptimizerConfig
from gradparity.tasks import Examples, summed_loss
from gradparity.tasks.text import CharTransformer
from gradparity.training import (
    PRECISIONS,
    Phase,
    Run,
    Window,
    adamw,
    backward,
    clip_by_norm,
    manual,
    no_clip,
    sgd_momentum,
    train_step,
    warmup_cosine,
    windows,
)
from small import small_config, small_task

ROUTES = pytest.mark.parametrize("route", ["backward", "manual", "frugal"])


def run_to(phase, run, window):
    """Advance one step until ``phase``."""
    for moment in train_step(run, window):
        if moment.phase == phase:
            return moment
    raise AssertionError(f"no {phase}")


@ROUTES
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_seven_steps_are_those_derived_by_hand(route, k, optimizer):
    config = small_config(
        task="digits_mlp",
        precision="fp64",
        accumulation_steps=k,
        clip=ClipConfig(by="norm", threshold=0.5),
        optimizer=OptimizerConfig(name=optimizer, lr=0.05, weight_decay=0.1, warmup_steps=2),
    )
    task = small_task("digits_mlp")
    run = build.lane(config, task, route).run
    parameters = list(run.model.parameters())
    weights = [p.detach().numpy().copy() for p in parameters]
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    momentum = [None] * len(weights)

    for step, window in enumerate(build.windows(config, task)):
        x = np.concatenate([b.inputs.numpy().reshape(len(b.inputs), -1) for b in window.microbatches])
        labels = np.concatenate([b.targets.numpy() for b in window.microbatches])
        loss, gradients = oracle.mlp_loss_and_gradients(weights, x, labels)

        shares, moments = [], train_step(run, window)
        for moment in moments:
            if moment.phase == Phase.FORWARD:
                shares.append(float(moment.loss))
            if moment.phase == Phase.UNSCALED:
                assert sum(shares) == pytest.approx(loss, rel=1e-12)
                assert_close([p.grad for p in parameters], gradients)
            if moment.phase == Phase.CLIPPED:
                gradients = oracle.clipped_by_norm(gradients, 0.5)
                assert_close([p.grad for p in parameters], gradients)

        lr = 0.05 * oracle.warmup_cosine(step, 2, config.steps)
        for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            decay = 0.1 if w.ndim > 1 else 0.0
            if optimizer == "adamw":
                weights[i], m[i], v[i] = oracle.adamw_step(w, g, m[i], v[i], step + 1, lr, decay)
            else:
                weights[i], momentum[i] = oracle.sgd_step(w, g, momentum[i], lr, decay)
        assert_close(parameters, weights)


def assert_close(tensors, arrays):
    """To 1e-10 of the largest element: float64 with a cancellation or two."""
    for t, a in zip(tensors, arrays, strict=True):
        np.testing.assert_allclose(t.detach().numpy(), a, rtol=1e-10, atol=1e-12 * np.abs(a).max())


def test_the_oracle_itself_agrees_with_finite_differences():
    rng = np.random.default_rng(0)
    shapes = [(4, 5), (4,), (3, 4), (3,), (2, 3), (2,)]
    weights = [rng.normal(size=s) for s in shapes]
    x, labels = rng.normal(size=(6, 5)), rng.integers(0, 2, 6)
    _, gradients = oracle.mlp_loss_and_gradients(weights, x, labels)
    for w, g in zip(weights, gradients, strict=True):
        at = tuple(0 for _ in w.shape)
        kept, losses = w[at], []
        for h in (1e-6, -1e-6):
            w[at] = kept + h
            losses.append(oracle.mlp_loss_and_gradients(weights, x, labels)[0])
        w[at] = kept
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(g[at], rel=1e-6, abs=1e-9)


def window_gradient(task, run, sizes):
    """The unscaled gradients of one window with the same samples, cut into microbatches of ``sizes``."""
    pieces = zip(*(part[: sum(sizes)].split(sizes) for part in task.train), strict=True)
    microbatches = [Examples(x.double() if x.is_floating_point() else x, y) for x, y in pieces]
    (window,) = windows(microbatches, len(sizes), lambda b: int((b.targets != -100).sum()))
    run_to(Phase.UNSCALED, run, window)
    return torch.cat([p.grad.flatten() for p in run.parameters])


def undisturbed(name):
    """A small task without BatchNorm and dropout, which tie samples together or draw by microbatch."""
    task = small_task(name)
    return replace(task, build=partial(CharTransformer, 16, 2, 1, dropout=0.0)) if name == "transformer" else task


@ROUTES
@pytest.mark.parametrize("name", ["digits_mlp", "transformer"])
def test_the_gradient_is_that_of_the_whole_window_however_it_is_cut(name, route):
    task, config = undisturbed(name), small_config(task=name, precision="fp64")
    gradients = [
        window_gradient(task, build.lane(config, task, route).run, sizes) for sizes in ([12], [7, 1, 4], [2, 6, 1, 3])
    ]
    for g in gradients[1:]:
        assert (g - gradients[0]).norm() <= 1e-12 * gradients[0].norm()


def test_a_mean_of_means_is_not_the_gradient_of_the_window():
    """The same check catches the usual mistake: padding makes the last microbatch count too much."""
    task, config = undisturbed("transformer"), small_config(task="transformer", precision="fp64")
    whole = window_gradient(task, build.lane(config, task, "backward").run, [12])
    run = build.lane(config, task, "backward").run

    def mean_over_three(model, batch):
        return summed_loss(model, batch) / int((batch.targets != -100).sum()) / 3

    pieces = [Examples(*b) for b in zip(*(part[:12].split([7, 1, 4]) for part in task.train), strict=True)]
    run_to(Phase.UNSCALED, replace(run, loss=mean_over_three), Window(tuple(pieces), 1))
    means = torch.cat([p.grad.flatten() for p in run.parameters])
    assert (means - whole).norm() > 0.01 * whole.norm()


def test_batch_norm_ties_samples_together_so_there_the_cut_matters():
    task, config = small_task("digits_cnn"), small_config(task="digits_cnn", precision="fp64")
    whole, cut = (window_gradient(task, build.lane(config, task, "backward").run, sizes) for sizes in ([12], [7, 1, 4]))
    assert (cut - whole).norm() > 0.01 * whole.norm()


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)

    def forward(self, x, head):
        return getattr(self, head)(x)


@pytest.mark.parametrize("route", [backward, manual])
@pytest.mark.parametrize("make_optimizer", [adamw, sgd_momentum])
def test_a_branch_that_a_step_does_not_use_is_not_moved_by_decay_or_momentum(route, make_optimizer):
    model = TwoHeads()
    parameters = list(model.parameters())
    optimizer = make_optimizer(parameters, lr=0.1, weight_decay=0.1)
    run = Run(
        model=model,
        loss=lambda model, batch: model(torch.ones(2, 3), batch).square().sum(),
        optimizer=optimizer,
        scheduler=warmup_cosine(optimizer, warmup_steps=1, total_steps=9),
        scaler=PRECISIONS["fp32"].scaler("cpu", init_scale=1.0, growth_interval=1, backoff_factor=0.5),
        autocast=partial(PRECISIONS["fp32"].autocast, "cpu"),
        clip=no_clip,
        route=route,
    )

    def step(head, zeros=False):
        before = model.b.weight.detach().clone()
        for moment in train_step(run, Window((head,), 2)):
            if zeros and moment.phase == Phase.CLIPPED:
                model.b.weight.grad = torch.zeros_like(model.b.weight)
        return torch.equal(model.b.weight, before)

    assert not step("b")
    assert step("a")
    assert not step("a", zeros=True), "with a zero in place of None it moves"


def test_the_learning_rate_warms_up_and_falls_and_is_never_the_same():
    optimizer = adamw([nn.Parameter(torch.ones(1, 1))], lr=2.0, weight_decay=0.0)
    schedule = warmup_cosine(optimizer, warmup_steps=3, total_steps=10)
    rates = []
    for _ in range(10):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2.0 * oracle.warmup_cosine(s, 3, 10) for s in range(10)])
    assert max(rates) == rates[3] == 2.0
    assert len(set(rates)) == 10


def test_only_matrices_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 3))
    for make in (adamw, sgd_momentum):
        decayed, others = make(model.parameters(), lr=0.1, weight_decay=0.3).param_groups
        assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
        assert [p.dim() for p in decayed["params"]] == [4, 2]
        assert {p.dim() for p in others["params"]} == {1}


def test_clipping_by_norm_keeps_the_direction_and_ignores_parameters_without_gradient():
    p, q, unused = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    p.grad, q.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    clip_by_norm(1.0)([p, q, unused])
    torch.testing.assert_close(torch.stack([p.grad, q.grad]), torch.tensor([[0.6, 0.0], [0.0, 0.8]]))
    assert unused.grad is None


@pytest.mark.parametrize(("name", "dtype", "scale"), [("fp64", torch.float64, 1), ("fp32", torch.float32, 1), ("bf16", torch.bfloat16, 1), ("fp16", torch.float16, 8)])  # fmt: skip
def test_each_precision_computes_in_its_dtype_and_only_fp16_scales(name, dtype, scale):
    precision = PRECISIONS[name]
    linear = nn.Linear(2, 2).to(precision.parameters)
    with precision.autocast("cpu"):
        assert linear(torch.ones(1, 2, dtype=precision.parameters)).dtype == dtype
    scaler = precision.scaler("cpu", init_scale=8.0, growth_interval=5, backoff_factor=0.25)
    assert scaler.scale(torch.tensor(1.0)).item() == scale
    assert scaler.is_enabled() == (name == "fp16")
    assert not scaler.is_enabled() or (scaler.get_growth_interval(), scaler.get_backoff_factor()) == (5, 0.25)
