"""A checkpoint is read back before it replaces another, and all that is in it comes back bit for bit."""

import random
from contextlib import nullcontext
from io import BytesIO

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR

from gradparity.training import Run, no_clip, resume, save, take_step
from gradparity.training.random_numbers import random_state, restore_random
from gradparity.training.routes import backward
from gradparity.training.windows import Window


def run_of(model, optimizer, scheduler=None):
    return Run(
        model=model,
        loss=lambda model, x: model(x).float().square().sum(),
        optimizer=optimizer,
        scheduler=scheduler or ExponentialLR(optimizer, 0.9),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        autocast=nullcontext,
        clip=no_clip,
        route=backward,
    )


def adam(lr=0.01):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, torch.optim.Adam(model.parameters(), lr=lr)


def step(run, dtype=torch.float32):
    take_step(run, Window((torch.ones(2, 3, dtype=dtype),), 2))


def weights_after(run, steps):
    for _ in range(steps):
        step(run)
    return [p.detach().clone() for p in run.model.parameters()]


NUMPY = {
    "lr": lambda: run_of(*adam(np.float64(0.01))),
    "schedule": lambda: run_of(*(made := adam()), LambdaLR(made[1], lambda step: np.cos(np.float64(step)))),
    "counter": lambda: run_of(*(made := adam()), _counted(ExponentialLR(made[1], 0.9), np.int64(0))),
    "not a number": lambda: _with(optimizer="group", value=float("nan")),
    "infinite": lambda: run_of(*adam(np.float64("inf"))),
}


def _counted(scheduler, last_epoch):
    scheduler.last_epoch = last_epoch
    return scheduler


@pytest.mark.parametrize("kind", NUMPY)
def test_numbers_of_numpy_that_are_the_same_in_python_come_back(kind, tmp_path):
    straight, path = NUMPY[kind](), tmp_path / "checkpoint.pt"
    step(straight)
    save(straight, path, done=1)
    again = NUMPY[kind]()
    assert resume(again, path) == 1
    for a, b in zip(weights_after(straight, 3), weights_after(again, 3), strict=True):
        assert torch.equal(a.view(torch.int32), b.view(torch.int32))


class Anything:
    pass


UNREADABLE = {
    "float32": lambda: run_of(*(made := adam()), LambdaLR(made[1], lambda step: np.float32(0.5))),
    "array": lambda: _with(optimizer="group", value=np.ones(2)),
    "object": lambda: _with(optimizer="state", value=Anything()),
    "extra": lambda: _with(optimizer=None, value=Anything()),
}


class WithExtra(nn.Linear):
    extra = None

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        pass


def _with(optimizer, value):
    model = WithExtra(3, 1)
    made = torch.optim.Adam(model.parameters(), lr=0.01)
    if optimizer == "group":
        made.param_groups[0]["also"] = value
    elif optimizer == "state":
        made.state[model.weight]["also"] = value
    else:
        model.extra = value
    return run_of(model, made)


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("as_path", [True, False])
def test_a_state_that_cannot_be_read_back_leaves_the_checkpoint_before(kind, as_path, tmp_path):
    if kind == "float32" and np.__version__ < "2":
        pytest.skip("torch reads a number of this NumPy back")
    good = run_of(*adam())
    path, file = tmp_path / "checkpoint.pt", BytesIO()
    save(good, path, done=3)
    save(good, file, done=3)
    with pytest.raises(ValueError, match=r"the state holds \S+, which no checkpoint can") as caught:
        save(UNREADABLE[kind](), path if as_path else file)
    assert "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == [path]
    assert resume(good, path) == resume(good, file) == 3


@pytest.mark.filterwarnings("ignore")
def test_a_quantized_buffer_is_no_reason_not_to_save():
    run = run_of(*adam())
    run.model.register_buffer("table", torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))
    save(run, file := BytesIO())
    resume(run, file)


class WideMomentum(torch.optim.Optimizer):
    """Keeps its momentum in fp32, in a tensor and in nested containers, whatever its parameters are in."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            first = torch.zeros_like(p, dtype=torch.float32)
            momentum = state["momentum"] = state.get("momentum", first) * 0.9 + p.grad.float() / 3
            state["nested"] = {"list": [momentum / 7, (momentum / 11, 3)]}
            p.sub_(self.param_groups[0]["lr"] * (momentum + state["nested"]["list"][0]))


def wide():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).bfloat16()
    return run_of(model, WideMomentum(model.parameters(), lr=0.01))


def flat(value):
    if isinstance(value, dict):
        value = [*value.values()]
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, list | tuple) else [value]


def test_state_in_fp32_of_parameters_in_bf16_comes_back_in_all_its_bits():
    straight, again, file = wide(), wide(), BytesIO()
    step(straight, torch.bfloat16)
    save(straight, file)
    resume(again, file)
    ours, theirs = (flat([run.optimizer.state[p] for p in run.parameters]) for run in (straight, again))
    assert len(ours) == len(theirs) == 8
    for a, b in zip(ours, theirs, strict=True):
        assert type(a) is type(b)
        assert not isinstance(a, torch.Tensor) or (a.dtype == torch.float32 and torch.equal(a, b))
    plainly = wide()
    plainly.optimizer.load_state_dict(straight.optimizer.state_dict())
    assert plainly.optimizer.state[plainly.model.weight]["momentum"].dtype == torch.bfloat16, "torch alone casts"


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_random_numbers_of_torch_python_and_numpy_go_on_where_they_were():
    run, file = run_of(*adam()), BytesIO()
    random.gauss(0, 1)
    np.random.randn()  # each keeps a second number for later
    save(run, file)
    straight = draws(), random.gauss(0, 1), np.random.randn()
    draws()
    resume(run, file)
    assert (draws(), random.gauss(0, 1), np.random.randn()) == straight


def test_another_generator_of_numpy_comes_back_too():
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        state = random_state()
        straight = draws()
        restore_random(state)
        assert draws() == straight
    finally:
        np.random.set_bit_generator(before)


class Cached(nn.Module):
    """Buffers that are not in the state_dict: one of its own, one that two modules share, and one that grows."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.register_buffer("cache", None, persistent=False)
        self.inner = nn.Module()
        self.inner.register_buffer("shared", self.count, persistent=False)
        self.inner.register_buffer("table", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.count += 1
        self.cache = self.count.clone()
        self.inner.table = torch.arange(int(self.count) + 1.0)
        return self.linear(x) * self.count


def cached():
    torch.manual_seed(0)
    model = Cached()
    return run_of(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_buffers_that_are_not_persistent_come_back():
    straight, again, file = cached(), cached(), BytesIO()
    step(straight)
    save(straight, file)
    resume(again, file)
    model = again.model
    assert (model.count, model.cache) == (1, 1)
    assert model.inner.table.tolist() == [0, 1]
    assert model.inner.shared is model.count
    assert [name for name, _ in model.named_buffers()] == [name for name, _ in straight.model.named_buffers()]
    for a, b in zip(weights_after(straight, 2), weights_after(again, 2), strict=True):
        assert torch.equal(a, b)
