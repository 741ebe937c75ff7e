"""``gradparity show`` states what a recorded loop does, and judges what a trace holds, with the rules of the audit."""

import json
import shutil
from contextlib import ExitStack, suppress
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import gradparity
from audited_loops import BROKEN, STEPS, X, in_half, loss_of, regularized, small
from gradparity.auditing.recorded.facts import facts_of
from gradparity.auditing.recorded.optimizer_class import optimizer_class
from gradparity.auditing.rules import RULES
from gradparity.cli.main import main
from gradparity.cli.show import NOT_IN_A_TRACE, SHOWN
from gradparity.trace.trace_file import read

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of some of the wrong loops


def recorded(loop, right, folder):
    """Record the last optimizer that a loop builds, which is the one that it trains with."""
    build, running = Optimizer.__init__, ExitStack()

    def built(self, *arguments):
        build(self, *arguments)
        running.close()
        shutil.rmtree(folder, ignore_errors=True)
        held = nn.ParameterList(p for group in self.param_groups for p in group["params"])
        running.enter_context(gradparity.record(held, self, folder))

    with patch.object(Optimizer, "__init__", built), running, suppress(RuntimeError, AssertionError):
        loop(right)


def shown(folder, capsys, *options):
    code = main(["show", str(folder), *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def codes(folder, capsys):
    _, out, _ = shown(folder, capsys, "--format", "json")
    return [(finding["code"], finding["verdict"]) for finding in json.loads(out)["findings"]]


NEEDS_THE_MODEL = {"GP602", "GP605"}
NEEDS_THE_SCHEDULER = {"GP811", "GP812", "GP813", "GP814"}
VISIBLE = [
    pytest.param(loop, code, verdict, id=loop.__name__)
    for loop, (code, verdict) in BROKEN.items()
    if code in SHOWN and code not in NEEDS_THE_MODEL | NEEDS_THE_SCHEDULER
]


@pytest.mark.parametrize(("loop", "code", "verdict"), VISIBLE)
def test_what_a_trace_shows_is_judged_as_the_audit_does(loop, code, verdict, tmp_path, capsys):
    recorded(loop, False, tmp_path / "wrong")
    assert codes(tmp_path / "wrong", capsys) == [(code, verdict)]
    recorded(loop, True, tmp_path / "right")
    assert codes(tmp_path / "right", capsys) == []


@pytest.mark.parametrize(
    "loop", [pytest.param(loop, marks=[] if index % 8 == 0 else pytest.mark.many) for index, loop in enumerate(BROKEN)]
)
def test_nothing_is_said_about_a_right_loop(loop, tmp_path, capsys):
    recorded(loop, True, tmp_path / "trace")
    assert codes(tmp_path / "trace", capsys) == []


def scheduled(folder, calls, scale=1.0):
    """Record a loop with two microbatches that makes these calls of its scaler and scheduler after them."""
    model, optimizer = small()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
    make = {
        "schedule": lambda: scheduler.step(),
        "step": lambda: scaler.step(optimizer),
        "update": lambda: scaler.update(),
    }
    with gradparity.record(model, optimizer, folder, scaler=scaler, scheduler=scheduler):
        for _ in range(2 * STEPS):
            optimizer.zero_grad()
            for _ in range(2):
                scaler.scale(in_half(model) / 2).backward()
                if "each" in calls:
                    scheduler.step()
            for call in calls:
                make.get(call, lambda: None)()


RIGHT = ("step", "update", "schedule")


@pytest.mark.parametrize(
    ("calls", "scale", "code"),
    [
        (("schedule", "step"), 1.0, "GP811"),
        (("each", "step"), 1.0, "GP812"),
        (("step", "schedule", "schedule", "schedule"), 1.0, "GP813"),
        (RIGHT, 2.0**24, "GP814"),
    ],
)
def test_a_recorded_scheduler_is_judged_too(calls, scale, code, tmp_path, capsys):
    scheduled(tmp_path / "wrong", calls, scale)
    assert codes(tmp_path / "wrong", capsys) == [(code, "unusual")]
    scheduled(tmp_path / "right", RIGHT)
    assert codes(tmp_path / "right", capsys) == []


def validated(folder, right, still=False):
    """Record a loop that validates after every third step, without going back, or in training mode if not ``still``."""
    model = regularized()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradparity.record(model, optimizer, folder):
        for step in range(9):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
            if step % 3 == 2:
                model.train(not right and not still)
                model(X)
                model.train(right or not still)


@pytest.mark.parametrize(("still", "found"), [(True, ("GP602", "wrong")), (False, ("GP605", "unusual"))])
def test_modes_are_judged_by_the_layers_that_a_trace_knows(still, found, tmp_path, capsys):
    validated(tmp_path / "wrong", False, still)
    assert codes(tmp_path / "wrong", capsys) == [found]
    validated(tmp_path / "right", True)
    assert codes(tmp_path / "right", capsys) == []


def clipped(folder, threshold, scale, order=("unscale", "clip")):
    model, _ = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    make = {"unscale": lambda: scaler.unscale_(optimizer),
            "clip": lambda: nn.utils.clip_grad_norm_(model.parameters(), threshold)}  # fmt: skip
    with gradparity.record(model, optimizer, folder, scheduler=scheduler):
        for _ in range(STEPS):
            optimizer.zero_grad()
            for x, y in ((X[:6], [0, 1, 2] * 2), (X[6:], [0, 1, 2] * 2)):
                scaler.scale(in_half(model, x, torch.tensor(y)) / 2).backward()
            for call in order:
                make[call]()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()


def test_the_statement_is_that_of_the_audit_without_lines(tmp_path, capsys):
    clipped(tmp_path, 0.05, 1024.0)
    code, out, err = shown(tmp_path, capsys)
    assert (code, err) == (0, "")
    assert [line.strip() for line in out.splitlines() if line.startswith("  ")] == [
        "AdamW in 1 group of 4 parameters, weight decay 0.1, 6 steps watched",
        "2 backwards a step",
        "loss scale 1024; 0 of 6 steps skipped for an overflow",
        "clipped to norm 0.05; threshold reached in 6 of 6 steps",
        "learning rate 0.01 to 0.005905; the scheduler stepped 6 times",
        "AdamW: no step was skipped for an overflow",
        "AdamW: no window was shorter than 2 microbatches",
    ]
    assert out.startswith("gradparity show: nothing wrong, nothing unusual, as far as a trace shows\n")
    assert NOT_IN_A_TRACE in " ".join(out.split())


@pytest.mark.parametrize("order", [("clip", "unscale"), ("clip",)])
def test_a_threshold_is_read_off_what_the_clip_left_also_before_unscale(order, tmp_path, capsys):
    clipped(tmp_path, 0.5, 1024.0, order)
    assert shown(tmp_path, capsys)[0] == 1
    assert codes(tmp_path, capsys) == [("GP201", "wrong")]
    [story] = facts_of(read(tmp_path)).stories
    assert {event.what.threshold for event in story.events if hasattr(event.what, "threshold")} == {0.5}


def test_a_clip_that_changed_nothing_has_no_threshold(tmp_path):
    clipped(tmp_path, 1e6, 1024.0)
    [story] = facts_of(read(tmp_path)).stories
    assert {event.what.threshold for event in story.events if hasattr(event.what, "threshold")} == {None}


def test_what_was_meant_is_judged(tmp_path, capsys):
    clipped(tmp_path, 0.05, 1024.0)
    meant = "accumulation_steps=2,max_norm=0.05,weight_decay=0.1,learning_rate=0.01,optimizer_class=AdamW"
    assert shown(tmp_path, capsys, "--expect", meant)[0] == 0
    code, out, _ = shown(tmp_path, capsys, "--expect", "accumulation_steps=3,max_norm=1.0")
    assert code == 1
    assert "GP001" in out
    assert "GP002" in out


def test_every_optimizer_of_torch_is_known_by_its_hyperparameters():
    p = [nn.Parameter(torch.zeros(2, 2))]
    for name in (
        "Adam",
        "AdamW",
        "SGD",
        "RMSprop",
        "Adagrad",
        "Adadelta",
        "Adamax",
        "NAdam",
        "RAdam",
        "LBFGS",
        "Rprop",
    ):
        [group] = getattr(torch.optim, name)(p).param_groups
        assert optimizer_class({**group, "initial_lr": 0.1}) == name
    assert optimizer_class({**group, "mine": 1}) == "optimizer"


def test_all_ranks_are_shown_and_equal_ones_once(tmp_path, capsys):
    clipped(tmp_path / "rank0", 0.05, 1024.0)
    shutil.copytree(tmp_path / "rank0", tmp_path / "rank1")
    clipped(tmp_path / "rank2", 0.05, 1024.0, ("clip", "unscale"))
    code, out, _ = shown(tmp_path, capsys)
    assert code == 1
    assert "ranks 0, 1" in out
    assert "rank 2" in out
    assert out.count("What the loop does") == 2
    assert len(json.loads(shown(tmp_path, capsys, "--format", "json")[1])) == 3


def test_a_recording_that_was_cut_off_is_shown_as_far_as_it_goes(tmp_path, capsys):
    clipped(tmp_path, 0.05, 1024.0)
    file = tmp_path / "trace.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: 2 * len(lines) // 3])[:-7])
    code, out, _ = shown(tmp_path, capsys)
    assert code == 0
    assert "the recording was cut off; it is judged as far as it goes" in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"{}\n", "is not a line of a trace"),
        (b'{"about": {"format": 1}}\n', "is not a trace of format 3"),
        (b'{"about": {"format": 3}}\n', "holds no step of the optimizer, so nothing is shown"),
        (b'{"about": {"format": 3}}\n{"event": "step", "step": 7, "parts": {"optimizer": {"values": {"group 0.lr": "x"}}}}\n', ""),
    ],
)  # fmt: skip
def test_a_trace_that_cannot_be_used_is_one_sentence(content, words, tmp_path, capsys):
    if content is not None:
        (tmp_path / "trace.jsonl").write_bytes(content)
    code, out, err = shown(tmp_path, capsys)
    if words:
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
    else:
        assert code == 0, "odd values are no reason to fail"


def test_only_rules_that_exist_are_named_as_shown():
    assert set(SHOWN) <= set(RULES)
