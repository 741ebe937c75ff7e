"""Bad loops through `gradparity check`: each gets a sentence of its own, and none crashes the check."""

import re
import sys
from functools import cache, partial
from pathlib import Path

import pytest

import test_check_loop
from bad_loops import CODES, ENDLESS, FAULTY, HELPERS, KINDS, LOOPS, RIGHT, SENTENCES, loop_named, path_of
from gradparity.check import check, check_loop
from gradparity.check.lookup import fault_lookup, rounding
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.running.observe import observe_reference
from gradparity.check.running.user_loop import call_by_name
from gradparity.cli.main import main
from gradparity.faults import FAULTS
from gradparity.processes import sandbox
from patience import with_some_patience


@cache
def right(precision):
    """Return the observed reference; it runs once for all tests."""
    return observe_reference([], precision)


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_loops(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(
        check_loop,
        "observe_reference",
        lambda faults, *rest: observe_reference(faults, *rest) if faults else right(*rest),
    )


@pytest.fixture(params=["few", pytest.param("all", marks=pytest.mark.slow)])
def known(request, monkeypatch):
    """Compare with few faults, or with all; return them."""
    if request.param == "all":
        return FAULTS
    few = {name: FAULTS[name] for name in ("loss-detached", "naive")}
    monkeypatch.setattr(check_loop, "look_up", partial(fault_lookup.look_up, known=few))
    monkeypatch.setattr(rounding, "FAULTS", few)
    return few


def test_every_bad_loop_has_an_expected_sentence():
    elsewhere = {name.partition(":")[2] for name in test_check_loop.SENTENCES if name.startswith("not_loops:")}
    assert LOOPS.keys() - HELPERS - elsewhere == {*SENTENCES, *ENDLESS, "puts_off_the_alarm"}
    assert len(LOOPS) > 60


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("known", "name"),
    [("few", name) for kind in KINDS for name in list(kind)[:2]]
    + [pytest.param("few", name, marks=pytest.mark.long) for kind in KINDS for name in list(kind)[2:][::2]]
    + [pytest.param("few", name, marks=pytest.mark.slow) for kind in KINDS for name in list(kind)[2:][1::2]]
    + [pytest.param("all", name, marks=pytest.mark.slow) for name in FAULTY],
    indirect=["known"],
)
def test_each_bad_loop_gets_its_sentence_and_exit_code(name, capsys):
    code = main(["check", path_of(name), "--quiet"])
    out, err = capsys.readouterr()
    assert (code, bool(err)) == (CODES[name], not out), out or err
    output = out or err
    assert re.search(SENTENCES[name], output)
    assert "Traceback" not in output
    if name in RIGHT:
        assert out.startswith("Identical: ")
    if err:
        assert err.count("\n") == 1


def test_an_uncheckable_loop_is_compared_with_single_faults_only(known):
    checked = check(partial(call_by_name, loop_named("overflows_always"), "loop"), "loop", "fp16")
    assert checked.finding.tried == len(known)


@pytest.mark.parametrize("name", ENDLESS)
def test_a_loop_that_never_returns_is_reported_with_its_line(name, capsys):
    def attempt(seconds):
        assert main(["check", path_of(name), "--patience", f"{seconds}"]) == 2
        output = capsys.readouterr().err
        said = rf"gradparity check: {path_of(name)} has not finished after {seconds:g} s \(loops_that_do_not_return.py, line \d+ in"
        assert re.match(said, output)
        assert f" in {ENDLESS[name]}); make it return, or raise --patience\n" in output

    with_some_patience(attempt)


def test_a_loop_that_cancels_the_alarm_is_killed_by_the_parent(monkeypatch, capsys):
    monkeypatch.setattr(sandbox, "GRACE", 4)

    def attempt(seconds):
        assert main(["check", path_of("puts_off_the_alarm"), "--patience", f"{seconds}"]) == 2
        said = f"loops_that_do_not_return:puts_off_the_alarm has not finished after {seconds:g} s; make it return"
        assert said in capsys.readouterr().err

    with_some_patience(attempt)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("known", "name", "precision"),
    [
        ("few", "loses_its_numbers", "bf16"),
        ("few", "loses_its_weights", "fp32"),
        ("few", "trains_a_copy_with_the_optimizer", "fp32"),
        pytest.param("all", "loses_its_numbers", "fp32", marks=pytest.mark.slow),
        pytest.param("all", "loses_its_weights", "bf16", marks=pytest.mark.slow),
        pytest.param("all", "trains_a_copy_with_the_optimizer", "bf16", marks=pytest.mark.slow),
    ],
    indirect=["known"],
)
def test_a_bad_loop_without_a_scaler_is_unknown_in_other_precisions(name, precision):
    checked = check(partial(call_by_name, loop_named(name), name), name, precision)
    assert checked.finding.match == Match.UNKNOWN
    assert checked.code == 1
    assert checked.probe.uncheckable or checked.probe.observed.end.finished


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import os; os._exit(0)", "the import of naughty ended its process with exit code 0"),
        ("import sys; sys.exit(1)", r"naughty cannot be imported \(SystemExit: 1\)"),
        (
            "raise KeyboardInterrupt",
            r"the loop itself raises KeyboardInterrupt \(naughty.py, line 1 in <module>\)",
        ),
        ("raise BaseExceptionGroup('x', [GeneratorExit()])", r"naughty cannot be imported \(BaseExceptionGroup: x"),
    ],
)
def test_a_module_that_raises_or_exits_on_import_gets_one_sentence(source, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("naughty.py").write_text(source)
    assert main(["check", "naughty:train"]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_a_module_whose_import_never_finishes_is_reported_with_its_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("naughty.py").write_text("while True: pass")

    def attempt(seconds):
        assert main(["check", "naughty:train", "--patience", f"{seconds}"]) == 2
        said = f"the import of naughty has not finished after {seconds:g} s (naughty.py, line 1 in <module>)"
        assert said in capsys.readouterr().err

    with_some_patience(attempt)


def test_settings_changed_by_an_import_are_not_blamed_on_the_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sets = "torch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)\n"
    Path("settled.py").write_text(f"import torch\n{sets}from loops import example as train\n")
    assert main(["check", "settled:train"]) == 0
    assert capsys.readouterr().out.startswith("Identical: settled:train")
