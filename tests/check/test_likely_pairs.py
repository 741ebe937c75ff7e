"""Pairs are tried only among faults whose effects were seen where the pair needs them."""

import pytest

from gradparity.check.lookup import likely_pairs
from gradparity.check.lookup.effects import effect_of
from gradparity.check.lookup.likely_pairs import Candidate, LikelyPairs, not_before
from gradparity.check.lookup.seen_runs import seen_run
from gradparity.check.running.observe import common_prefix, observe_reference
from gradparity.faults import FAULTS
from stressed import PRECISION, known


def candidate(name, loop):
    """A fault as a candidate for a loop."""
    run, reference = known(name).observations, known(None).observations
    first = common_prefix(run, reference)
    effect = effect_of(run[first], reference[first]) if first < min(len(run), len(reference)) else None
    return Candidate(FAULTS[name], seen_run(known(name)).agreement(seen_run(loop)), effect)


def pairs_for(loop, names):
    """The pairs that are tried for a loop, of the named faults."""
    base = common_prefix(loop.observations, known(None).observations)
    return LikelyPairs(loop, known(None), base, [candidate(name, loop) for name in names])


def tried(*names, others=()):
    """The pairs that are tried for a loop with the named faults, the candidates, and where it diverges."""
    loop = observe_reference([FAULTS[name] for name in names], PRECISION)
    pairs = pairs_for(loop, (*names, *others))
    base = common_prefix(loop.observations, known(None).observations)
    return [{one.name, other.name} for one, other in (*pairs.documented(), *pairs.others())], pairs.candidates, base


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
    pairs = pairs_for(known("clip-before-unscale"), ("clipping-missing", "optimizer-not-restored"))
    assert not pairs.leading
    assert len(pairs.candidates) == 2
    assert not [*pairs.documented(), *pairs.others()]


HERE = ("padding-trained-on", "targets-not-shifted", "mean-of-microbatch-means", "warm-up-from-zero")
"""Faults that show in the first forward: three change the loss, the last the scheduler."""


def test_of_faults_that_show_at_once_the_pairs_whose_effects_are_the_loops_come_first(monkeypatch):
    monkeypatch.setattr(likely_pairs, "_FEW", 0)
    one, other, third, last = HERE
    loop = observe_reference([FAULTS["dropout-not-rescaled"], FAULTS[one]], PRECISION)  # of which one is not known here
    pairs = pairs_for(loop, HERE)
    assert len(pairs.here) == len(HERE)
    fitting = [{one, other}, {one, third}, {other, third}]
    found = [{one.name, other.name} for one, other in pairs.others()]
    assert found == fitting, "the loop leaves the scheduler alone"
    monkeypatch.setattr(likely_pairs, "_FEW", 5)
    found = [{one.name, other.name} for one, other in pairs_for(loop, HERE).others()]
    assert found[:3] == fitting
    assert len(found) > len(fitting)
    assert {one, last} in found, "if they are few, the others are tried last"


def test_no_pair_is_tried_twice():
    loop = observe_reference([FAULTS["clip-before-unscale"], FAULTS["stepped-twice"]], PRECISION)
    pairs = pairs_for(loop, ("clip-before-unscale", "stepped-twice", "clipping-missing", "optimizer-not-restored"))
    found = [frozenset((one.name, other.name)) for one, other in (*pairs.documented(), *pairs.others())]
    assert len(found) == len(set(found)) > 1
