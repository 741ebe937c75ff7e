"""A loop that draws random numbers of its own is followed, also if it resumes, unless it does not restore them."""

from functools import partial

import pytest
import torch

from gradparity.check import check_loop
from gradparity.check.check_loop import check
from gradparity.check.lookup import fault_lookup
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.presentation.report import headline
from gradparity.check.running.user_loop import call_by_name


def resuming(begin=lambda: None, before_each=lambda: None, restores=True):
    def loop(model, optimizer, batches, loss, scheduler, plan):
        def epoch():
            for start in range(0, len(batches), plan.accumulation_steps):
                window = batches[start : start + plan.accumulation_steps]
                tokens = sum(map(plan.count, window))
                optimizer.zero_grad()
                for batch in window:
                    before_each()
                    (loss(model, batch) / tokens).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
                optimizer.step()
                scheduler.step()

        parts = model, optimizer, scheduler
        begin()
        epoch()
        torch.save([*(part.state_dict() for part in parts), torch.get_rng_state()], plan.checkpoint)
        plan.restart()
        plan.checkpoint.seek(0)
        *states, random = torch.load(plan.checkpoint)
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
        if restores:
            torch.set_rng_state(random)
        for _ in range(1, plan.epochs):
            epoch()

    return loop


def draw():
    torch.rand(())


SEEDED, SLOW = partial(torch.manual_seed, 3), pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_dictionary(monkeypatch):
    monkeypatch.setattr(check_loop, "look_up", partial(fault_lookup.look_up, known={}))


def checked(loop):
    return check(partial(call_by_name, loop, "loop"), "loop", "fp32", quiet=True)


@pytest.mark.parametrize(
    "draws",
    [
        pytest.param({"begin": SEEDED}, marks=SLOW),
        pytest.param({"before_each": draw}, marks=SLOW),
        {"begin": SEEDED, "before_each": draw},
    ],
)
def test_a_loop_that_draws_and_resumes_is_followed(draws):
    result = checked(resuming(**draws))
    assert result.finding.match == Match.IDENTICAL, headline(result)


@pytest.mark.parametrize(
    "draws",
    [
        pytest.param({}, marks=SLOW),
        {"begin": SEEDED},
        pytest.param({"before_each": draw}, marks=SLOW),
        pytest.param({"begin": SEEDED, "before_each": draw}, marks=SLOW),
    ],
)
def test_a_loop_that_does_not_restore_its_random_numbers_is_not_followed(draws):
    assert not checked(resuming(**draws, restores=False)).passed
