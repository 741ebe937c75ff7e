"""The reference step against oracles that share nothing with it: two routes with one bug would agree perfectly."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import oracle
from gradparity.studies.tasks import Examples, summed_loss
from gradparity.studies.tasks.text import CharTransformer
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import ClipConfig, OptimizerConfig
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
    take_step,
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


def run_for(model, optimizer, scaler=None, clip=no_clip, loss=None):
    return Run(
        model=model,
        loss=loss or (lambda model, x: model(x).square().sum()),
        optimizer=optimizer,
        scheduler=warmup_cosine(optimizer, warmup_steps=3, total_steps=100),
        scaler=scaler or torch.amp.GradScaler("cpu", enabled=False),
        autocast=nullcontext,
        clip=clip,
        route=backward,
    )


def test_what_is_clipped_is_what_the_optimizer_updates():
    """A body that nobody updates has large gradients; in the norm, they would crush those of the head."""
    torch.manual_seed(0)
    body, head = nn.Linear(3, 3), nn.Linear(3, 1)
    model = nn.Sequential(body, head)
    run = run_for(model, torch.optim.SGD(head.parameters(), lr=0.1), clip=clip_by_norm(1.0))
    assert run.parameters == list(head.parameters())
    run_to(Phase.CLIPPED, run, Window((1e3 * torch.ones(2, 3),), 2))
    assert nn.utils.get_total_norm([p.grad for p in head.parameters()]) == pytest.approx(1.0, rel=1e-4)

    everything = nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert everything > 10, "the body has gradients as well"


def test_parameters_come_in_the_order_of_the_model_and_those_of_no_model_last():
    model, alpha = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), nn.Parameter(torch.zeros(()))
    model[1].bias = model[0].bias  # a tied one counts once
    groups = [{"params": [alpha, model[1].weight]}, {"params": [model[0].bias]}]
    run = run_for(model, torch.optim.SGD(groups, lr=0.1))
    assert list(map(id, run.parameters)) == [id(p) for p in (model[0].bias, model[1].weight, alpha)]
    run.optimizer.add_param_group({"params": [model[0].weight]})
    assert run.parameters[0] is model[0].weight, "a group that is added later counts from then on"


@pytest.mark.parametrize("backoff", [0.5, 0.75, 1e-3, 1 - 2**-22])
def test_the_schedule_stands_still_while_every_step_is_skipped_however_far_the_scale_falls(backoff):
    model = nn.Linear(1, 1)
    scaler = PRECISIONS["fp16"].scaler("cpu", init_scale=1e-36, growth_interval=1, backoff_factor=backoff)
    run = run_for(model, torch.optim.SGD(model.parameters(), lr=0.1), scaler, loss=lambda m, x: m(x).sum() * x.sum())
    window = Window((torch.full((1, 1), float("inf")),), 1)
    for _ in range(300):
        take_step(run, window)
    assert run.scheduler.last_epoch == 0
    assert backoff > 0.9 or scaler.get_scale() < 1e-38, "else it has not fallen far enough to prove anything"


def test_a_scale_that_has_fallen_to_nothing_falls_no_further():
    """Such that to ask only whether it has fallen would count steps that were not made."""
    for backoff, end in ((0.5, 0.0), (0.75, 2 * 2**-149)):
        scaler = PRECISIONS["fp16"].scaler("cpu", init_scale=1e-36, growth_interval=1, backoff_factor=backoff)
        scales = []
        p = nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([p], lr=0.1)
        for _ in range(300):
            p.grad = scaler.scale(torch.tensor([float("inf")]))
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        assert p == 1
        assert scales[-2] == scales[-1] == end


@pytest.mark.parametrize("backoff", [1 - 2**-24, 1 - 2**-40, 1.0])
def test_a_backoff_that_an_fp32_scale_does_not_feel_is_refused(backoff):
    with pytest.raises(ValueError, match="backoff_factor is"):
        PRECISIONS["fp16"].scaler("cpu", init_scale=65536.0, growth_interval=1, backoff_factor=backoff)


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_any_other_backoff_makes_every_scale_fall(scale):
    assert torch.tensor(scale, dtype=torch.float32) * (1 - 2**-23) < scale


def test_a_whole_step_is_one_call_where_the_generator_alone_makes_none():
    def weights(step):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        run = run_for(model, sgd_momentum(model.parameters(), lr=0.1, weight_decay=0.0))
        step(run, Window((torch.ones(2, 3),), 2))
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    beginning = weights(lambda *_: None)
    assert torch.equal(weights(train_step), beginning)
    assert not torch.equal(weights(take_step), beginning)
    assert torch.equal(weights(take_step), weights(lambda *of: list(train_step(*of))))


def test_without_a_scaler_an_inf_goes_into_the_weights():
    """As the comment in the step says: nothing else looks for it."""
    for enabled in (False, True):
        model = nn.Linear(1, 1)
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        run = run_for(model, torch.optim.SGD(model.parameters(), lr=0.1), scaler)
        take_step(run, Window((torch.full((1, 1), float("inf")),), 1))
        assert model.weight.isfinite().all() == enabled
