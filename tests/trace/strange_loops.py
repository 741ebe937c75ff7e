"""Training loops as people write them. Each builds what it trains, and trains it inside of the recording it is given.

``record`` is called as ``gradparity.record`` is, without the folder; unwatched, it does nothing.
"""

import copy
import functools
import threading

import torch
import torch.nn.functional as F
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import LBFGS, SGD, AdamW, Optimizer, SparseAdam
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torch.utils.checkpoint import checkpoint

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
LOOPS = {}


def loop(function):
    LOOPS[function.__name__] = function
    return function


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def sgd(model, **options):
    return SGD(model.parameters(), lr=0.1, **options)


def steps(model, optimizer, number=3):
    for _ in range(number):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()


def closure_of(model, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        return loss

    return closure


class Scaled(SGD):
    """Its step takes more than a closure."""

    def step(self, closure=None, scale=1.0):
        for group in self.param_groups:
            group["lr"] = 0.1 * scale
        return super().step(closure)


class Graded(SGD):
    """Its step takes the loss, or a number."""

    def step(self, value):
        assert isinstance(value, torch.Tensor | float), f"a {type(value)} was handed on"
        for group in self.param_groups:
            group["lr"] = 0.1 * float(value)
        super().step()
        return "of its own"


class Sharp(Optimizer):
    """SAM: two backwards and an inner optimizer a step."""

    def __init__(self, parameters, base, **options):
        super().__init__(parameters, options)
        self.base_optimizer = base(self.param_groups, **options)

    def step(self, closure):
        with torch.enable_grad():
            closure()
        shifts = [(p, 0.05 * p.grad) for group in self.param_groups for p in group["params"]]
        with torch.no_grad():
            for p, shift in shifts:
                p.add_(shift)
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for p, shift in shifts:
                p.sub_(shift)
        self.base_optimizer.step()
        return loss


class Wrapped:
    """Keeps the real optimizer, and is none."""

    def __init__(self, inner):
        self.inner = inner

    def zero_grad(self):
        self.inner.zero_grad()

    def step(self):
        self.inner.step()


@loop
def plain(record):
    model = net()
    optimizer = sgd(model)
    with record(model, optimizer):
        steps(model, optimizer)
    return model, optimizer


@loop
def step_with_more_arguments(record):
    model = net()
    optimizer = Scaled(model.parameters(), lr=0.1)
    with record(model, optimizer):
        for scale in (0.01, 0.5):
            assert optimizer.step(closure_of(model, optimizer), scale) > 0
            optimizer.step(closure=closure_of(model, optimizer), scale=scale)
    return model, optimizer


@loop
def step_with_the_loss(record):
    model = net()
    optimizer = Graded(model.parameters(), lr=0.1)
    with record(model, optimizer):
        for _ in range(2):
            loss = model(X).square().mean()
            loss.backward()
            assert optimizer.step(loss) == "of its own"
            assert optimizer.step(0.5) == "of its own"
    return model, optimizer


@loop
def closure_that_is_asked_who_it_is(record):
    model, seen = net(), []

    class Asks(SGD):
        def step(self, closure):
            seen.append(closure)
            return super().step(closure)

    optimizer = Asks(model.parameters(), lr=0.1)
    closure = closure_of(model, optimizer)
    with record(model, optimizer):
        optimizer.step(closure)
    assert seen == [closure]
    return model, optimizer


@loop
def lbfgs(record):
    model = net()
    optimizer = LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    with record(model, optimizer):
        for _ in range(2):
            optimizer.step(closure_of(model, optimizer))
    return model, optimizer


@loop
def sharpness_aware(record):
    model = net()
    optimizer = Sharp(model.parameters(), SGD, lr=0.1)
    with record(model, optimizer):
        for _ in range(2):
            optimizer.step(closure_of(model, optimizer))
    return model, optimizer


@loop
def wrapped_under_another_name(record):
    model = net()
    optimizer = Wrapped(sgd(model))
    with record(model, optimizer):
        steps(model, optimizer)
    return model, optimizer.inner


@loop
def two_optimizers_of_one_model(record):
    model = net()
    first, second = sgd(model[0]), AdamW(model[2].parameters())
    with record(model, first):
        for _ in range(3):
            first.zero_grad()
            second.zero_grad()
            model(X).square().mean().backward()
            first.step()
            second.step()
    return model, first, second


@loop
def adversaries(record):
    generator, critic = net(), nn.Linear(2, 1)
    ours, theirs = sgd(generator), sgd(critic)
    with record(generator, ours):
        for _ in range(3):
            theirs.zero_grad()
            critic(generator(X).detach()).mean().backward()
            nn.utils.clip_grad_norm_(critic.parameters(), 0.1)
            theirs.step()
            ours.zero_grad()
            (-critic(generator(X)).mean()).backward()
            ours.step()
    return generator, critic


@loop
def optimizer_replaced_midway(record):
    model = net()
    optimizer = sgd(model)
    with record(model, optimizer):
        steps(model, optimizer, 1)
        optimizer = AdamW(model.parameters())
        steps(model, optimizer, 2)
    return model, optimizer


@loop
def optimizer_of_another_model(record):
    old = net()
    optimizer, model = sgd(old), copy.deepcopy(old)
    with record(model, optimizer):
        steps(model, optimizer)
    return model, old


@loop
def step_compiled_as_a_whole(record):
    model = net()
    optimizer = sgd(model)

    @torch.compile(backend="eager")
    def step(x):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    with record(model, optimizer):
        for _ in range(3):
            step(X)
    return model, optimizer


@loop
def optimizer_step_compiled(record):
    model = net()
    optimizer = AdamW(model.parameters())
    step = torch.compile(optimizer.step, backend="eager")
    with record(model, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(X).sum().backward()
            step()
    return model, optimizer


@loop
def model_compiled_in_one_graph(record):
    model = net()
    optimizer = sgd(model)
    with record(model, optimizer):
        steps(torch.compile(model, backend="eager", fullgraph=True), optimizer)
    return model, optimizer


@loop
def zero_grad_in_one_graph(record):
    model = net()
    optimizer = sgd(model)

    @torch.compile(backend="eager", fullgraph=True)
    def loss(x):
        model.zero_grad()
        return model(x).square().mean()

    with record(model, optimizer):
        for _ in range(2):
            loss(X).backward()
            optimizer.step()
    return model, optimizer


@loop
def sparse_embedding(record):
    model = nn.EmbeddingBag(10, 3, sparse=True)
    optimizer = SparseAdam(model.parameters())
    with record(model, optimizer):
        for row in (0, 3):
            optimizer.zero_grad()
            model(torch.tensor([[row, 1, 1]])).square().sum().backward()
            optimizer.step()
    return model, optimizer


@loop
def buffers_of_every_layout(record):
    model = net()
    eye = torch.eye(4)
    model.register_buffer("coo", eye.to_sparse())
    model.register_buffer("csr", eye.to_sparse_csr())
    model.register_buffer("quantized", torch.quantize_per_tensor(eye, 0.1, 0, torch.qint8))
    model.register_buffer("channels", torch.quantize_per_channel(eye, torch.ones(4), torch.zeros(4), 0, torch.qint8))
    model.register_buffer("conjugate", torch.complex(eye, eye).conj())
    model.register_buffer("negative", torch.complex(eye, eye).conj().imag)
    model.register_buffer("meta", torch.empty(3, device="meta"))
    model.register_buffer("float8", eye.to(torch.float8_e4m3fn))
    model.register_buffer("complex128", torch.complex(eye, eye).to(torch.complex128))
    model.register_buffer("complex32", torch.complex(eye, eye).to(torch.complex32))
    model.register_buffer("unsigned", torch.ones(3, dtype=torch.uint32))
    model.register_buffer("empty", torch.empty(0))
    model.register_buffer("expanded", torch.ones(1).expand(5))
    model.register_buffer("mkldnn", eye.to_mkldnn())
    model.register_buffer("nested", torch.nested.nested_tensor([eye, eye[:2]], layout=torch.jagged))
    freed = torch.ones(4)
    freed.untyped_storage().resize_(0)
    model.register_buffer("freed", freed)
    optimizer = sgd(model)
    with record(model, optimizer):
        steps(model, optimizer)
    return model[0], model[2], optimizer


@loop
def parameters_on_meta_beside(record):
    model = net()
    model[1].spare = nn.Linear(2, 2, device="meta")
    optimizer = sgd(model[0])
    with record(model, optimizer):
        steps(model, optimizer)
    return model[0], optimizer


@loop
def measured_on_meta_first(record):
    model = net()
    optimizer = sgd(model)
    with record(model, optimizer):
        with torch.device("meta"):
            nn.Linear(4, 2)(torch.randn(3, 4)).sum().backward()
        steps(model, optimizer)
    return model, optimizer


@loop
def reentrant_checkpoint(record):
    model = net()
    optimizer = sgd(model)
    with record(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            model[2](checkpoint(model[:2], X.clone().requires_grad_(), use_reentrant=True)).square().mean().backward()
            optimizer.step()
    return model, optimizer


@loop
def reentrant_checkpoint_before_a_frozen_head(record):
    model = net()
    model[2].requires_grad_(False)
    optimizer = sgd(model[0])
    with record(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            model[2](checkpoint(model[:2], X.clone().requires_grad_(), use_reentrant=True)).square().mean().backward()
            optimizer.step()
    return model, optimizer


@loop
def checkpoint_without_reentry(record):
    model = nn.Sequential(net(), nn.Dropout(0.5))
    optimizer = sgd(model)
    with record(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            checkpoint(model, X, use_reentrant=False).square().mean().backward()
            optimizer.step()
    return model, optimizer


@loop
def several_threads(record):
    """One after another, so that the bits do not hang on who comes first."""
    model = net()
    optimizer = sgd(model)

    def backward():
        model(X).square().mean().backward()

    with record(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(3):
                thread = threading.Thread(target=backward)
                thread.start()
                thread.join()
            optimizer.step()
    return model, optimizer


@loop
def threads_with_models_of_their_own(record):
    model, others = net(), [net() for _ in range(3)]
    optimizer = sgd(model)

    def train(other):
        steps(other, sgd(other), 5)

    with record(model, optimizer):
        threads = [threading.Thread(target=train, args=(other,)) for other in others]
        for thread in threads:
            thread.start()
        steps(model, optimizer, 5)
        for thread in threads:
            thread.join()
    return model, *others


@loop
def generator_left_open(record):
    model = net()
    optimizer = sgd(model)

    def training():
        with record(model, optimizer):
            while True:
                steps(model, optimizer, 1)
                yield

    running = training()
    for _ in range(3):
        next(running)
    return model, optimizer, running


@loop
def recordings_that_end_in_another_order(record):
    models = net(), net()
    optimizers = [sgd(model) for model in models]
    first, second = (record(m, o) for m, o in zip(models, optimizers, strict=True))
    first.__enter__()
    steps(models[0], optimizers[0], 1)
    second.__enter__()
    steps(models[1], optimizers[1], 1)
    first.__exit__(None, None, None)
    steps(models[0], optimizers[0], 1)
    steps(models[1], optimizers[1], 1)
    second.__exit__(None, None, None)
    return models


@loop
def loss_scale_and_clipping(record):
    model, scaler = net(), GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    optimizer = sgd(model, momentum=0.9)
    with record(model, optimizer):
        for factor in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale(model(X * factor).square().mean()).backward()
            scaler.unscale_(optimizer=optimizer)
            nn.utils.clip_grad_value_(model.parameters(), 0.5)
            nn.utils.clip_grad_norm_(iter(model.parameters()), 0.1)
            nn.utils.clip_grads_with_norm_(list(model.parameters()), 0.1, torch.tensor(1.0))
            scaler.step(optimizer=optimizer)
            scaler.update()
    return model, optimizer


@loop
def a_scaler_of_its_own_class(record):
    class Careful(GradScaler):
        def step(self, optimizer, *args):
            return super().step(optimizer, *args)

        def unscale_(self, optimizer):
            return super().unscale_(optimizer)

    model, scaler = net(), Careful("cpu", init_scale=4.0)
    optimizer = sgd(model)
    with record(model, optimizer, scaler=scaler):
        for _ in range(2):
            scaler.scale(model(X).square().mean()).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    return model, optimizer


@loop
def by_hand_through_data(record):
    model = net()
    optimizer = sgd(model)
    with record(model, optimizer):
        for _ in range(2):
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
            for part in X.split(3):
                gradients = torch.autograd.grad(model(part).square().mean(), list(model.parameters()))
                for p, g in zip(model.parameters(), gradients, strict=True):
                    p.grad.data += g
            optimizer.step()
    return model, optimizer


@loop
def gradient_penalty(record):
    model = net()
    optimizer = sgd(model)
    with record(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            x = X.clone().requires_grad_()
            (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            first = torch.autograd.grad(model(x).sum(), list(model.parameters()), create_graph=True)
            (slope.square().sum() + sum(g.square().sum() for g in first)).backward()
            optimizer.step()
    return model, optimizer


@loop
def functional_gradients(record):
    model = net()
    optimizer = sgd(model)

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (X,)).square().mean()

    with record(model, optimizer):
        for _ in range(2):
            gradients = torch.func.grad(loss)({name: p.detach() for name, p in model.named_parameters()})
            for name, p in model.named_parameters():
                p.grad = gradients[name]
            optimizer.step()
    return model, optimizer


@loop
def optimizer_inside_of_backward(record):
    model = net()
    optimizers = {p: SGD([p], lr=0.1) for p in model.parameters()}

    def update(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    handles = [p.register_post_accumulate_grad_hook(update) for p in model.parameters()]
    with record(model, next(iter(optimizers.values()))):
        for _ in range(2):
            model(X).square().mean().backward()
    for handle in handles:
        handle.remove()
    return (model,)


@loop
def trained_outside_of_the_model(record):
    model, temperature = net(), torch.zeros((), requires_grad=True)
    criterion = nn.Linear(2, 1)
    optimizer = AdamW([*model.parameters(), temperature, *criterion.parameters()])
    with record(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            (criterion(model(X)).square().mean() * temperature.exp()).backward()
            optimizer.step()
    return model, criterion, optimizer


@loop
def groups_added_later_and_layers_frozen(record):
    model = net()
    optimizer = sgd(model[0])
    with record(model, optimizer):
        steps(model, optimizer, 1)
        optimizer.add_param_group({"params": list(model[2].parameters()), "lr": 0.01})
        steps(model, optimizer, 1)
        model[0].requires_grad_(False)
        steps(model, optimizer, 1)
    return model, optimizer


@loop
def lazy_layers(record):
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    optimizer = sgd(model)
    with record(model, optimizer):
        steps(model, optimizer)
    return model, optimizer


@loop
def its_own_schedule(record):
    class Mine(LRScheduler):
        def get_lr(self):
            return [group["lr"] * 0.5 for group in self.optimizer.param_groups]

        def step(self, epoch=None):
            super().step()
            return "stepped"

    model = net()
    optimizer = sgd(model)
    schedule, other = Mine(optimizer), StepLR(sgd(net()), 1)
    with record(model, optimizer, scheduler=schedule):
        for _ in range(2):
            steps(model, optimizer, 1)
            assert schedule.step() == "stepped"
        assert type(other.last_epoch) is int
    return model, optimizer


@loop
def modes_of_the_whole_process(record):
    model = net()
    optimizer = sgd(model)
    with torch.autograd.set_detect_anomaly(True), torch.autograd.graph.save_on_cpu(), record(model, optimizer):
        steps(model, optimizer, 1)
        with torch.autograd.set_multithreading_enabled(False), torch.device("cpu"):
            steps(model, optimizer, 1)
    return model, optimizer


@loop
def counted_by_a_mode(record):
    from torch.utils.flop_counter import FlopCounterMode

    model = net()
    optimizer = sgd(model)
    with record(model, optimizer), FlopCounterMode(display=False) as flops:
        steps(model, optimizer)
    assert flops.get_total_flops() == 3 * FLOPS, flops.get_total_flops()
    return model, optimizer


FLOPS = 2 * (6 * 4 * 8 * 2 + 6 * 8 * 2 * 3)


@loop
def gradients_in_a_graph(record):
    model = net()
    optimizer = sgd(model)
    with record(model, optimizer):
        for _ in range(2):
            model(X).square().mean().backward(create_graph=True)
            optimizer.step()
            for p in model.parameters():
                p.grad = None
    return model, optimizer


@loop
def a_step_that_raises_and_is_tried_again(record):
    class Fails(SGD):
        fails = True

        def step(self, closure=None):
            if self.fails:
                self.fails = False
                raise RuntimeError("not now")
            return super().step(closure)

    model = net()
    optimizer = Fails(model.parameters(), lr=0.1)
    with record(model, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(X).square().mean().backward()
            try:
                optimizer.step()
            except RuntimeError:
                optimizer.step()
        try:
            torch.zeros(1).backward()
        except RuntimeError:
            steps(model, optimizer, 1)
    return model, optimizer


@loop
def a_model_that_answers_for_itself(record):
    """Dunder methods of its own: equal to everything, without a length, called by keywords."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def __eq__(self, other):
            raise TypeError("not to be compared")

        __hash__ = nn.Module.__hash__

        def __len__(self):
            return 0

        def get_extra_state(self):
            raise RuntimeError("none")

        def forward(self, *, x):
            return self.inner(x)

    model = Odd()
    optimizer = sgd(model)
    with record(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            model(x=X).square().mean().backward()
            optimizer.step()
    return model.inner, optimizer


@loop
def warnings_are_errors_and_numpy_raises(record):
    import warnings

    import numpy as np

    model = net()
    optimizer = sgd(model)
    with record(model, optimizer), warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for factor in (1.0, 1e30):
            optimizer.zero_grad()
            (model(X).square().mean() * factor).backward()
            optimizer.step()
    return model, optimizer


@loop
def functions_that_are_unwrapped(record):
    model, scaler = net(), GradScaler("cpu", init_scale=4.0)
    optimizer = sgd(model)
    before = hasattr(GradScaler.step, "__wrapped__"), hasattr(Optimizer.zero_grad, "__wrapped__")
    with record(model, optimizer, scaler=scaler):
        assert before == (hasattr(GradScaler.step, "__wrapped__"), hasattr(Optimizer.zero_grad, "__wrapped__"))
        zero_grad = functools.partial(optimizer.zero_grad, True)
        for _ in range(2):
            zero_grad()
            scaler.scale(F.mse_loss(model(X), torch.zeros(6, 2))).backward()
            assert scaler.step(optimizer) is None
            scaler.update()
    return model, optimizer
