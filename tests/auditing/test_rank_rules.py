"""Each rule on ranks finds the loop that breaks it, on two ranks, and says nothing about its repair."""

import inspect
from pathlib import Path

import pytest
import rank_loops

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.report import report
from gradparity.auditing.scripts import facts_of_ranks
from gradparity.processes.launch import launch


@pytest.fixture(scope="module")
def all_facts():
    return launch(rank_loops.facts_of_every_loop, 2)


def judged(all_facts, loop, right):
    own, *others = (found[loop.__name__, right] for found in all_facts)
    return report(own, others=others)


LOOPS = [pytest.param(loop, *expected, id=loop.__name__) for loop, expected in rank_loops.BROKEN.items()]


@pytest.mark.parametrize(("loop", "code", "verdict"), LOOPS)
def test_a_broken_rule_is_found_and_nothing_else(all_facts, loop, code, verdict):
    found = judged(all_facts, loop, False)
    assert [(f.rule.code, str(f.verdict)) for f in found.findings] == [(code, verdict)]
    lines, start = inspect.getsourcelines(loop)
    assert start <= found.findings[0].line.number < start + len(lines)


@pytest.mark.parametrize("loop", [*rank_loops.BROKEN, *rank_loops.RIGHT], ids=lambda loop: loop.__name__)
def test_nothing_is_said_about_a_right_loop(all_facts, loop):
    found = judged(all_facts, loop, True)
    assert [(f.rule.code, f.sentence) for f in found.findings] == []
    assert found.steps >= 4
    assert found.does[0].text.startswith("2 ranks train together")


def test_not_one_bit_is_changed_on_any_rank():
    for apart, compared in launch(rank_loops.the_same_bits, 2):
        assert apart == []
        assert compared > 80


def test_rank_0_reports_for_all_and_the_training_goes_on():
    first, second = launch(rank_loops.audited_inside, 2, False)
    assert first == [(["GP753"], 0), (["GP751"], 0)]
    assert second == [([], 0), ([], 0)]
    assert launch(rank_loops.audited_inside, 2, True) == [[([], 0), ([], 0)]] * 2


def test_a_rank_that_is_not_watched_is_named():
    [note], other = launch(rank_loops.audited_on_rank_0_only, 2)
    assert note == "no facts came from rank 1, so nothing is said about what happened there"
    assert other is None


@pytest.mark.parametrize("name", ["mkdir", "write_bytes", "read_bytes"])
def test_a_folder_that_cannot_be_used_is_a_note(name, monkeypatch, tmp_path):
    def refused(*_, **__):
        raise OSError("no space left")

    for variable, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(facts_of_ranks, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(Path, name, refused)
    own = facts_of_ranks.Ranks()
    own.look()
    facts = RunFacts()
    if name == "write_bytes":
        own.own.number = 1
    if name == "read_bytes":
        own.own._file(1, "facts").touch()
    assert list(own.exchange(facts, 0.0)) == []
    assert facts.notes == ["the facts of other ranks could not be read: OSError: no space left"]


def test_an_facts_of_an_earlier_training_is_not_read(monkeypatch, tmp_path):
    monkeypatch.setattr(facts_of_ranks, "_UNSEEN", 0.0)
    monkeypatch.setattr(facts_of_ranks, "gettempdir", lambda: str(tmp_path))
    for variable, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(variable, value)
    earlier = facts_of_ranks.this_rank_of_all()
    earlier.announce()
    earlier.hand_in(RunFacts())
    own = facts_of_ranks.Rank(0, 2, earlier.folder)
    assert len(own.gather(1.0)[0]) == 1
    earlier.announce()
    earlier.hand_in(RunFacts())
    own = facts_of_ranks.Rank(0, 2, earlier.folder, own.began + 60)
    assert own.gather(1.0) == ([], ["no facts came from rank 1, so nothing is said about what happened there"])
