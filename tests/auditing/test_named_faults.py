"""The audit sees the dictionary's faults in place, names them, and says nothing about the reference.

No reference runs beside them: each faulty loop is watched alone, as a script would be.
"""

from pathlib import Path

import pytest
from named_faults import MISNAMED, UNAIDED, UNSEEN, WITH_WORDS

from gradparity.auditing.finding import RuleVerdict
from gradparity.auditing.rules import RULES, judge
from gradparity.auditing.rules.expected import Expected
from gradparity.auditing.watching.user_lines import raised
from gradparity.auditing.watching.watch import Watch
from gradparity.faults import FAULTS, FaultKind, patching
from gradparity.faults.patching import reference_with
from gradparity.faults.stress_scenario import ACCUMULATION_STEPS, MAX_NORM
from gradparity.parity.random_stream import RandomStream, seed_of

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of many of the wrong loops

MEANT = Expected(
    accumulation_steps=ACCUMULATION_STEPS,
    max_norm=MAX_NORM,
    weight_decay=0.1,
    no_decay="vectors",
    learning_rate=0.02,
    optimizer_class="AdamW",
    amsgrad="yes",
    precision="fp16",
    schedule="cosine",
    warmup_steps=2,
    final_learning_rate=0.002,
    total_steps=8,
    frozen=0,
)
"""The plan of the reference, in the words of ``--expect``."""

QUICK = ("zeros-instead-of-none", "autocast-around-all-steps", "average-follows-skipped-steps", "decayed-twice")


@pytest.fixture(autouse=True)
def as_a_users_own(monkeypatch):
    """The lines of the reference count as the user's."""
    monkeypatch.setattr(patching, "_HERE", Path("/home/user/loop.py"))
    patching._compiled.cache_clear()
    yield
    patching._compiled.cache_clear()


def facts_of(faults, precision="fp16"):
    """The facts of the stress scenario with these faults in it; objects are built under the watch, as by a script."""
    names, watch = reference_with(faults), Watch(100)
    with RandomStream(seed_of(0, "stress")).active(), watch.watching():
        try:
            names["reference"](**vars(names["build"](precision)))
        except Exception as error:  # a fault that raises
            watch.raised = raised(error)
    assert watch.fault is None
    return watch.facts()


def codes(name, meant=None):
    return [finding.rule.code for finding in judge(facts_of([FAULTS[name]]), meant=meant)]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32", "fp64"])
def test_nothing_is_said_about_the_reference(precision):
    facts = facts_of([], precision)
    assert judge(facts) == []
    assert facts.stories[0].steps == 8


def test_nothing_is_said_about_the_reference_if_what_it_means_is_said():
    assert judge(facts_of([]), meant=MEANT) == []


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_named_without_a_word(name):
    assert codes(name) == UNAIDED[name].split()


def test_every_bug_is_named_misnamed_or_unseen():
    bugs = {name for name, fault in FAULTS.items() if fault.kind != FaultKind.ROUNDING}
    assert {*UNAIDED, *MISNAMED, *WITH_WORDS, *UNSEEN} == bugs
    assert len(UNAIDED) + len(MISNAMED) + len(WITH_WORDS) + len(UNSEEN) == len(bugs)
    assert all(set(named.split()) <= set(RULES) for named in (UNAIDED | WITH_WORDS).values())
    assert all(len(named.split()) <= 3 for named in (UNAIDED | WITH_WORDS).values())


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if i % 3 else pytest.mark.long) for i, n in enumerate(UNAIDED)],
)
def test_each_fault_is_named_without_a_word(name):
    found = codes(name)
    assert set(UNAIDED[name].split()) & set(found)
    assert len(set(found)) <= 3


@pytest.mark.long
@pytest.mark.parametrize("name", WITH_WORDS)
def test_a_fault_that_needs_a_word_is_named_with_one(name):
    facts = facts_of([FAULTS[name]])
    assert judge(facts) == []
    found = judge(facts, meant=MEANT)
    assert WITH_WORDS[name] in [finding.rule.code for finding in found]
    assert {finding.verdict for finding in found} == {RuleVerdict.WRONG}


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(MISNAMED))
def test_a_fault_that_shows_as_another_one_is_seen(name):
    assert codes(name)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(UNSEEN))
def test_what_cannot_be_seen_from_inside_is_known(name):
    assert codes(name, MEANT) == []


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.kind == FaultKind.ROUNDING])
def test_nothing_is_said_about_a_loop_that_only_rounds_differently(name):
    assert codes(name, MEANT) == []


def test_most_bugs_are_seen_and_named():
    """Of 184 bugs that do not raise, and 16 that do."""
    raising = {name for name, fault in FAULTS.items() if fault.kind == FaultKind.RAISES}
    assert len(raising) == 16
    assert raising <= set(UNAIDED)
    assert len({*UNAIDED, *MISNAMED} - raising) >= 123
    assert len({*UNAIDED, *MISNAMED, *WITH_WORDS} - raising) >= 153
    assert len(set(UNAIDED) - raising) >= 120
