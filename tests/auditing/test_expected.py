"""The words of the user on what was meant are compared with what the loop does."""

import math

import pytest
import torch
from torch import nn

import gradparity
from audited_loops import STEPS, X, Y, loss_of, small
from gradparity.auditing.rules.expected import CHOICES, Expected, expected
from gradparity.errors import UserError

MEANT = {
    "accumulation_steps": 3,
    "max_norm": 0.1,
    "weight_decay": 0.01,
    "no_decay": "vectors",
    "learning_rate": 0.2,
    "optimizer_class": "AdamW",
    "momentum": 0.9,
    "amsgrad": "no",
    "precision": "bf16",
    "schedule": "cosine",
    "warmup_steps": 2,
    "final_learning_rate": 0.02,
    "total_steps": STEPS,
    "frozen": 0,
}
ALONE = [name for name in MEANT if name not in ("schedule", "final_learning_rate")]
"""The words that mean something without others."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def factor(step, schedule="cosine", warmup_steps=2, total_steps=STEPS):
    """The share of the largest learning rate after some steps; schedules end at a tenth."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    left = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[schedule]
    return 0.1 + 0.9 * left


def train(
    accumulation_steps=3,
    max_norm=0.1,
    weight_decay=0.01,
    learning_rate=0.2,
    optimizer="AdamW",
    vectors=0.0,
    precision="bf16",
    frozen=False,
    clip=nn.utils.clip_grad_norm_,
    steps=STEPS,
    options=None,
    **schedule,
):
    model, _ = small()
    groups = [{"params": [p], "weight_decay": weight_decay if p.ndim > 1 else vectors} for p in model.parameters()]
    made = getattr(torch.optim, optimizer)(groups, lr=learning_rate, **(options or {}))
    model[2].weight.requires_grad_(not frozen)
    scheduler = torch.optim.lr_scheduler.LambdaLR(made, lambda step: factor(step, **schedule))
    pieces = range(0, 12, 12 // accumulation_steps)
    for _ in range(steps):
        made.zero_grad()
        for at in pieces:
            some = slice(at, at + 12 // accumulation_steps)
            with torch.autocast("cpu", DTYPES.get(precision), enabled=precision != "fp32"):
                loss = loss_of(model, X[some], Y[some]) / accumulation_steps
            loss.backward()
        if max_norm:
            clip(model.parameters(), max_norm)
        made.step()
        scheduler.step()


@pytest.mark.parametrize("said", [{}, MEANT, *({name: MEANT[name]} for name in ALONE)])
def test_a_loop_that_does_what_was_meant_is_clean(said):
    with gradparity.audit(**said) as audit:
        train()
    assert [(f.rule.code, f.sentence) for f in audit.report.findings] == []
    assert audit.report.verdict == "clean"


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"accumulation_steps": 2}, "GP001"),
        ({"max_norm": 0.2}, "GP002"),
        ({"max_norm": 0.0}, "GP002"),
        ({"clip": nn.utils.clip_grad_value_}, "GP002"),
        ({"clip": lambda p, norm: nn.utils.clip_grad_norm_(p, norm, norm_type=math.inf)}, "GP002"),
        ({"weight_decay": 0.0}, "GP003"),
        ({"weight_decay": 0.1}, "GP003"),
        ({"learning_rate": 0.3}, "GP004"),
        ({"learning_rate": 0.1}, "GP004"),
        ({"optimizer": "NAdam"}, "GP005"),
        ({"precision": "fp16"}, "GP006"),
        ({"precision": "fp32"}, "GP006"),
        ({"vectors": 0.01}, "GP007"),
        ({"options": {"amsgrad": True}}, "GP008"),
        ({"options": {"betas": (0.8, 0.99)}}, "GP008"),
        ({"frozen": True}, "GP009"),
        ({"schedule": "constant"}, "GP010"),
        ({"total_steps": 3 * STEPS}, "GP010"),
        ({"warmup_steps": 0}, "GP010"),
        ({"steps": STEPS - 1}, "GP011"),
        ({"steps": STEPS + 2}, "GP011"),
    ],
)
def test_a_loop_that_does_something_else_is_wrong(other, code):
    with gradparity.audit(**MEANT) as audit:
        train(**other)
    found = [f.rule.code for f in audit.report.findings]
    assert code in found
    assert set(found) <= {code, "GP010"}  # another rate, or another number of steps, is another schedule too
    assert audit.report.wrong


@pytest.mark.parametrize("schedule", CHOICES["schedule"])
def test_a_schedule_is_told_from_the_others(schedule):
    for trained in CHOICES["schedule"]:
        with gradparity.audit(schedule=schedule, warmup_steps=2, total_steps=12, final_learning_rate=0.02) as audit:
            train(schedule=trained, steps=12, total_steps=12)
        assert audit.report.wrong == (trained != schedule)


def test_a_rate_that_still_rises_may_be_smaller_than_the_largest_one_that_was_meant():
    with gradparity.audit(learning_rate=0.2) as audit:
        train(warmup_steps=20, total_steps=40)
    assert audit.report.verdict == "clean"


def test_losses_that_are_added_up_count_as_microbatches():
    with gradparity.audit(accumulation_steps=3) as audit:
        model, optimizer = small()
        for _ in range(STEPS):
            optimizer.zero_grad()
            sum(loss_of(model, x, y) / 3 for x, y in zip(X.split(4), Y.split(4), strict=True)).backward()
            optimizer.step()
    assert audit.report.verdict == "clean"


@pytest.mark.parametrize("said", [{"precision": "bf16"}, {"precision": "fp16"}])
def test_the_precision_inside_a_compiled_graph_is_not_judged(said):
    model, optimizer = small()
    step = torch.compile(lambda: loss_of(model), backend="aot_eager")
    with gradparity.audit(**said) as audit:
        for _ in range(STEPS):
            optimizer.zero_grad()
            step().backward()
            optimizer.step()
    assert audit.report.verdict == "clean"


def test_a_threshold_times_the_loss_scale_is_the_threshold_that_was_meant():
    with gradparity.audit(max_norm=0.1) as audit:
        model, optimizer = small()
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        for _ in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = loss_of(model)
            scaler.scale(loss).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1 * scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
    assert audit.report.verdict == "clean"


def test_what_was_meant_is_read_from_the_command_line():
    assert expected("") == Expected()
    assert expected(", ".join(f"{name}={value}" for name, value in MEANT.items())) == Expected(**MEANT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps=3", "--expect knows no 'steps'; it knows accumulation_steps, max_norm, "),
        ("max_norm=large", "--expect max_norm=large: 'large' is no number"),
        ("max_norm", "--expect max_norm=: '' is no number"),
        ("total_steps=1.5", "--expect total_steps=1.5: '1.5' is no whole number"),
        ("schedule=cosin", "schedule=cosin: write schedule=cosine or linear or constant"),
        ("precision=half", "precision=half: write precision=fp16 or bf16 or fp32"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(text, words):
    with pytest.raises(UserError) as error:
        expected(text)
    assert str(error.value).startswith(words)


def test_a_word_that_is_no_choice_is_refused_in_a_program_too():
    with pytest.raises(UserError, match="amsgrad=True: write amsgrad=yes or no"):
        gradparity.audit(amsgrad="True")
