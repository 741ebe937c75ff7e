"""An audit runs nothing of the loop's that the loop would not run, and keeps no error of the loop's for itself."""

import signal
import sys
from collections import Counter
from threading import Thread, get_ident

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import gradparity
from gradparity.auditing.watching import loss_weights
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer
from gradparity.cli.main import main

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])


def trained(loss_of, steps=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    return [p.tolist() for p in model.parameters()]


def cross_entropy(model):
    return F.cross_entropy(model(X), Y)


def packed(calls):
    store = {}

    def pack(tensor):
        store[len(calls)] = tensor
        calls.append("pack")
        return len(calls) - 1

    def unpack(key):
        calls.append("unpack")
        return store.pop(key)

    def loss_of(model):
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return cross_entropy(model)

    return loss_of


def computed_again(calls):
    def loss(scores):
        calls.append("forward")
        return F.cross_entropy(scores, Y)

    return lambda model: checkpoint(loss, model(X), use_reentrant=False)


@pytest.mark.parametrize("way", [packed, computed_again])
def test_what_a_hook_of_the_loop_has_packed_is_not_unpacked(way):
    alone, watched = [], []
    bits = trained(way(alone))
    with gradparity.audit() as audit:
        assert trained(way(watched)) == bits
    assert watched == alone
    assert audit.report.verdict == "clean"


def test_a_loss_that_no_hook_has_packed_is_read():
    with gradparity.audit() as audit:
        trained(cross_entropy)
    assert any("NllLoss" in item.text for item in audit.report.does)


def test_a_loss_that_cannot_be_looked_at_does_not_end_the_backward(monkeypatch):
    def two_losses(model):
        return cross_entropy(model) + 2 * cross_entropy(model)

    bits, clone, copied = trained(two_losses), torch.Tensor.clone, []

    def with_memory_for_one_of_two(self, *args, **kwargs):
        if sys._getframe(1).f_globals["__name__"] == loss_weights.__name__:
            copied.append(self)
            if len(copied) % 2 == 0:
                raise torch.OutOfMemoryError("no memory for a copy")
        return clone(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "clone", with_memory_for_one_of_two)
    with gradparity.audit() as audit:
        assert trained(two_losses) == bits
    assert len(copied) == 6
    assert (audit.report.verdict, audit.report.steps) == ("clean", 3)
    assert not any("NllLoss" in item.text for item in audit.report.does), "half of the losses would be a wrong weight"


class Operations(TorchDispatchMode):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [Operations, Functions])
def test_a_mode_of_the_loop_sees_no_operation_of_ours(mode):
    def names(seen):
        return Counter({name.split(" at 0x")[0]: number for name, number in seen.items()})

    alone, watched = Counter(), Counter()
    with mode(alone):
        trained(cross_entropy)
    with gradparity.audit(), mode(watched):
        trained(cross_entropy)
    assert names(watched) == names(alone)


class TimeIsOverError(Exception):
    pass


class Ends:
    def __call__(self, number, frame):
        raise TimeIsOverError


def in_a_method(number, frame):
    return Ends()(number, frame)


@pytest.mark.parametrize("handler", [Ends(), in_a_method])
def test_a_timeout_that_comes_while_the_audit_looks_ends_the_loop(handler, monkeypatch):
    look = WatchedOptimizer.gradients

    def interrupted(self):
        signal.raise_signal(signal.SIGALRM)
        return look(self)

    monkeypatch.setattr(WatchedOptimizer, "gradients", interrupted)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with gradparity.audit(), pytest.raises(TimeIsOverError):
            trained(cross_entropy)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_gradients_are_read_in_the_thread_that_uses_them_alone():
    reads = []

    class Watched(nn.Parameter):
        @property
        def grad(self):
            reads.append(get_ident())
            return torch.Tensor.grad.__get__(self)

        @grad.setter
        def grad(self, value):
            torch.Tensor.grad.__set__(self, value)

    def train(parameter):
        optimizer = torch.optim.SGD([parameter], lr=0.1, foreach=False)
        for _ in range(2):
            optimizer.zero_grad()
            parameter.square().sum().backward()
            nn.utils.clip_grad_norm_([parameter], 0.1)
            optimizer.step()
        return optimizer

    with gradparity.audit() as audit:
        kept = []
        thread = Thread(target=lambda: kept.append(train(Watched(torch.ones(3)))))
        thread.start()
        thread.join()
        train(nn.Parameter(torch.ones(3)))
    assert len(kept) == 1
    assert set(reads) - {thread.ident} == set()
    [clipped] = [item.text for item in audit.report.does if item.text.startswith("clipped to norm 0.1")]
    assert clipped.endswith("reached in 2 of 2 steps")
    assert audit.report.does[0].text.startswith("2 optimizers")


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        ("1 / 0", "ZeroDivisionError", "exit code 1 (ZeroDivisionError: division by zero)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "exit code 130 (interrupted)"),
    ],
)
def test_an_error_goes_to_the_hook_of_the_script(end, kind, words, tmp_path, capsys, monkeypatch):
    script = tmp_path / "train.py"
    hook = "lambda kind, error, trace: print('saved', kind.__name__, trace.tb_lineno)"
    script.write_text(f"import sys\nsys.excepthook = {hook}\n{end}\n")
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    assert main(["audit", str(script)]) == 2
    out, err = capsys.readouterr()
    assert out == f"saved {kind} 3\n"
    assert "Traceback" not in err
    assert f"ended with {words}" in " ".join(err.split())


def test_a_broken_hook_of_the_script_loses_no_traceback(tmp_path, capsys, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text("import sys\nsys.excepthook = lambda *_: [][0]\n1 / 0\n")
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    assert main(["audit", str(script)]) == 2
    err = capsys.readouterr().err
    assert "IndexError" in err
    assert "1 / 0" in err
