"""Pairs are tried only among faults whose effects were seen where the pair needs them."""

import pytest

from gradparity.check.likely_pairs import Candidate, likely_pairs, not_before
from gradparity.check.observe import common_prefix, observe_reference
from gradparity.check.seen_runs import seen_run
from gradparity.faults import FAULTS
from stressed import PRECISION, known


def tried(*names, others=()):
    """The pairs that are tried for a loop with the named faults, the candidates, and where it diverges."""
    loop = observe_reference([FAULTS[name] for name in names], PRECISION)
    whole = seen_run(loop)
    candidates = [Candidate(FAULTS[name], seen_run(known(name)).agreement(whole)) for name in (*names, *others)]
    base = common_prefix(loop.observations, known(None).observations)
    pairs = likely_pairs(loop, known(None), base, candidates)
    return [{one.name, other.name} for one, other in pairs], candidates, base


EARLY = "mean-of-microbatch-means"
"""A fault that shows in the first forward."""


@pytest.mark.parametrize(
    "pair",
    [
        ("clip-before-unscale", "schedule-advanced-on-skipped-steps"),
        ("clip-before-unscale", "optimizer-not-restored"),
        ("stepped-twice", "schedule-advanced-once-an-epoch-after-the-checkpoint"),
        ("last-window-dropped", "validated-in-train-mode-without-autocast"),
    ],
)
def test_a_pair_is_tried_and_no_fault_that_shows_before_the_loop_diverges(pair):
    pairs, candidates, base = tried(*pair, others=(EARLY,))
    assert set(pair) in pairs
    assert all(EARLY not in each for each in pairs)
    assert {x.fault.name for x in candidates} - {x.fault.name for x in not_before(candidates, base)} == {EARLY}


def test_a_fault_that_shows_first_is_tried_where_the_loop_diverges_there():
    pairs, _, base = tried(EARLY, "stepped-twice")
    assert base == 0
    assert {EARLY, "stepped-twice"} in pairs


def test_a_fault_that_shows_later_is_not_tried_with_one_that_shows_differently_from_the_loop():
    loop = known("clip-before-unscale")
    whole = seen_run(loop)
    names = ("clipping-missing", "optimizer-not-restored")
    candidates = [Candidate(FAULTS[name], seen_run(known(name)).agreement(whole)) for name in names]
    base = common_prefix(loop.observations, known(None).observations)
    assert all(x.shared == base for x in candidates)
    assert not list(likely_pairs(loop, known(None), base, candidates))
