"""The facts of another process are read as they were written, and nothing else is: no code runs from a file."""

import pickle

import pytest
import torch

import gradparity
from audited_loops import loss_of, small
from gradparity.auditing import report
from gradparity.auditing.facts_file import read_facts, write_facts
from gradparity.auditing.rules import judge
from gradparity.auditing.watching.watch import Watch


def facts_of_a_wrong_loop():
    model, _ = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01))
    optimizer.param_groups[0]["mine"] = lambda: None
    watch = Watch(10)
    with watch.watching():
        for _ in range(3):
            loss_of(model).backward()
            optimizer.step()
    return watch.facts()


def test_an_facts_is_read_as_it_was_written(tmp_path):
    facts = facts_of_a_wrong_loop()
    write_facts(facts, tmp_path / "facts")
    read = read_facts(tmp_path / "facts")
    assert [f.rule.code for f in judge(read)] == [f.rule.code for f in judge(facts)] == ["GP101"]
    assert read.stories[0].events == facts.stories[0].events
    assert read.stories[0].groups[0]["lr"] == pytest.approx(0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["facts"]


class Evil:
    def __reduce__(self):
        return print, ("code of the file runs",)


@pytest.mark.parametrize("content", [Evil(), [Evil()], gradparity.audit, "text", torch.ones(1)])
def test_anything_else_is_refused_and_nothing_runs(content, tmp_path, capsys):
    (tmp_path / "facts").write_bytes(pickle.dumps(content))
    with pytest.raises(pickle.UnpicklingError):
        read_facts(tmp_path / "facts")
    assert capsys.readouterr().out == ""


def test_a_class_of_ours_that_is_no_fact_is_not_built(tmp_path, monkeypatch):
    built = []

    class NoFact:
        def __init__(self, number):
            built.append(number)

        def __reduce__(self):
            return NoFact, (1,)

    NoFact.__module__, NoFact.__qualname__ = report.__name__, "NoFact"
    monkeypatch.setattr(report, "NoFact", NoFact, raising=False)
    (tmp_path / "facts").write_bytes(pickle.dumps(NoFact(0)))
    with pytest.raises(pickle.UnpicklingError, match="is no fact"):
        read_facts(tmp_path / "facts")
    assert built == [0]
