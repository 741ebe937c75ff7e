"""Any change of an optimizer's state is seen, though a state that has not changed is not read again."""

import pytest
import torch

from audited_loops import loss_of, small
from gradparity.auditing.watching import watched_optimizer
from gradparity.auditing.watching.user_lines import NOWHERE
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer


@pytest.fixture
def watched():
    model, _ = small()
    optimizer = torch.optim.AdamW(model.parameters())
    loss_of(model).backward()
    optimizer.step()
    return WatchedOptimizer(optimizer, 0, NOWHERE), optimizer


def first_state(optimizer):
    return next(iter(optimizer.state.values()))


def written_in_place(optimizer):
    next(v for v in first_state(optimizer).values() if isinstance(v, torch.Tensor) and v.dim()).add_(1)


def replaced(optimizer):
    state = first_state(optimizer)
    name = next(iter(state))
    state[name] = state[name] + 1


def emptied(optimizer):
    optimizer.state.clear()


def loaded(optimizer):
    state = optimizer.state_dict()
    for values in state["state"].values():
        for name, value in values.items():
            values[name] = value + 1
    optimizer.load_state_dict(state)


def given_a_number(optimizer):
    first_state(optimizer)["count"] = 3


@pytest.mark.parametrize("change", [written_in_place, replaced, emptied, loaded, given_a_number])
def test_a_change_of_the_state_is_seen(watched, change):
    seen, optimizer = watched
    before = seen.state()
    change(optimizer)
    assert seen.state() != before


def test_a_state_that_has_not_changed_is_read_once(watched, monkeypatch):
    seen, _ = watched
    before = seen.state()
    monkeypatch.setattr(watched_optimizer, "late_hash_of_all", None)
    assert seen.state() == before
