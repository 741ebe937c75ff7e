"""The words of the user on what was meant are compared with what the loop does."""

import pytest
import torch
from torch import nn

import gradparity
from audited_loops import STEPS, X, Y, loss_of, small
from gradparity.auditing.rules.expected import Expected, expected
from gradparity.errors import UserError

MEANT = {
    "accumulation_steps": 3,
    "max_norm": 0.1,
    "weight_decay": 0.01,
    "learning_rate": 0.2,
    "optimizer_class": "AdamW",
}


def train(accumulation_steps=3, max_norm=0.1, weight_decay=0.01, learning_rate=0.2, optimizer="AdamW"):
    model, _ = small()
    groups = [{"params": [p], "weight_decay": weight_decay * (p.ndim > 1)} for p in model.parameters()]
    made = getattr(torch.optim, optimizer)(groups, lr=learning_rate)
    pieces = range(0, 12, 12 // accumulation_steps)
    for _ in range(STEPS):
        made.zero_grad()
        for at in pieces:
            some = slice(at, at + 12 // accumulation_steps)
            (loss_of(model, X[some], Y[some]) / accumulation_steps).backward()
        if max_norm:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        made.step()


@pytest.mark.parametrize("said", [{}, MEANT, *({name: value} for name, value in MEANT.items())])
def test_a_loop_that_does_what_was_meant_is_clean(said):
    with gradparity.audit(**said) as audit:
        train()
    assert audit.report.verdict == "clean"


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"accumulation_steps": 2}, "GP001"),
        ({"max_norm": 0.2}, "GP002"),
        ({"max_norm": 0.0}, "GP002"),
        ({"weight_decay": 0.0}, "GP003"),
        ({"weight_decay": 0.1}, "GP003"),
        ({"learning_rate": 0.1}, "GP004"),
        ({"optimizer": "SGD"}, "GP005"),
    ],
)
def test_a_loop_that_does_something_else_is_wrong(other, code):
    with gradparity.audit(**MEANT) as audit:
        train(**other)
    assert [f.rule.code for f in audit.report.findings] == [code]
    assert audit.report.wrong


def test_what_was_meant_is_read_from_the_command_line():
    assert expected("") == Expected()
    text = "accumulation_steps=3,max_norm=0.1,weight_decay=0.01,learning_rate=0.2,optimizer_class=AdamW"
    assert expected(text) == Expected(**MEANT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps=3", "--expect knows no 'steps'; it knows accumulation_steps, max_norm, "),
        ("max_norm=large", "--expect max_norm=large: 'large' is no number"),
        ("max_norm", "--expect max_norm=: '' is no number"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(text, words):
    with pytest.raises(UserError) as error:
        expected(text)
    assert str(error.value).startswith(words)
