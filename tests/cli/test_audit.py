"""``gradparity audit`` runs a script as it is, reports, and keeps its own exit code apart from the script's."""

import json
from pathlib import Path

import pytest

from gradparity.auditing.rules import RULES
from gradparity.cli.main import main

LOOP = """
import sys, torch
from torch import nn
print("arguments", sys.argv[1:], __name__)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range({steps}):
    {zero}
    model(torch.ones(2, 4)).mean().backward()
    optimizer.step()
    {end}
print("steps", {steps})
"""


def written(tmp_path, wrong=False, steps=6, end="pass", comment=""):
    path = tmp_path / "train.py"
    zero = "pass" if wrong else "optimizer.zero_grad()"
    text = LOOP.format(steps=steps, zero=zero, end=end)
    path.write_text(text.replace(".backward()", f".backward(){comment}"))
    return str(path)


def audited(capsys, *arguments):
    code = main(["audit", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_wrong_script_is_run_as_it_is_and_told_its_line(tmp_path, capsys):
    code, out, err = audited(capsys, written(tmp_path, wrong=True), "--lr", "3")
    assert code == 1
    assert out == "arguments ['--lr', '3'] __main__\nsteps 6\n"
    assert "wrong  GP101 gradients-left-over" in err
    assert "train.py:9: model(torch.ones(2, 4)).mean().backward()" in err
    assert "optimizer.zero_grad()" in err
    assert all(line == line.rstrip() for line in err.splitlines())


def test_a_right_script_is_told_what_it_does(tmp_path, capsys):
    code, _, err = audited(capsys, written(tmp_path))
    assert code == 0
    assert "nothing wrong, nothing unusual" in err
    assert "SGD in 1 group of 2 parameters, weight decay 0, 6 steps watched" in " ".join(err.split())


@pytest.mark.parametrize(
    ("end", "words", "code"),
    [
        ("raise ValueError('too bad')", "ended with exit code 1 (ValueError: too bad)", 0),
        ("sys.exit(3)", "ended with exit code 3", 0),
        ("sys.exit('no data')", "ended with exit code 1", 0),
        ("raise KeyboardInterrupt", "ended with exit code 130 (interrupted)", 0),
    ],
)
def test_what_was_seen_until_a_script_ends_is_reported(tmp_path, capsys, end, words, code):
    found, out, err = audited(capsys, written(tmp_path, end=end))
    assert found == code
    assert words in " ".join(err.split())
    assert "1 step watched" in " ".join(err.split())
    assert "steps 6" not in out


def test_after_enough_steps_the_script_goes_on_or_is_stopped(tmp_path, capsys):
    for option, goes_on in (((), True), (("--then-stop",), False)):
        code, out, err = audited(capsys, "--steps", "3", *option, written(tmp_path, wrong=True))
        assert code == 1
        assert ("steps 6" in out) == goes_on
        assert "3 steps watched" in " ".join(err.split())


def test_a_script_that_makes_no_step_is_not_judged(tmp_path, capsys):
    path = tmp_path / "nothing.py"
    path.write_text("print('hello')\n")
    code, out, err = audited(capsys, str(path))
    assert (code, out) == (2, "hello\n")
    assert "no torch optimizer made a step, so nothing was judged" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name the script to audit, such as gradparity audit train.py; see gradparity audit --help"),
        (("absent.py",), "the script absent.py does not exist; name a file, or a module after -m"),
        (("-m", "absent_module"), "there is no module absent_module; name one that python -m finds"),
        (
            ("-m", "json"),
            "json cannot be run: No module named json.__main__; 'json' is a package and cannot be directly",
        ),
        (("--steps", "0", "x.py"), "--steps is 0; allowed is 1 to 100000"),
        (("--ignore", "GP9999", "x.py"), "there is no rule GP9999; gradparity audit --list prints all"),
        (("--explain", "XY1"), "there is no rule XY1; gradparity audit --list prints all"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence, capsys):
    code, out, err = audited(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"gradparity audit: {sentence}")
    assert err.count("\n") == 1


def test_a_module_is_run_as_python_m_does(tmp_path, capsys, monkeypatch):
    written(tmp_path, wrong=True)
    monkeypatch.chdir(tmp_path)
    code, out, _ = audited(capsys, "-m", "train", "--seed", "1")
    assert code == 1
    assert out.startswith("arguments ['--seed', '1'] __main__")


def test_modules_beside_the_script_are_found(tmp_path, capsys):
    (tmp_path / "beside_it.py").write_text("STEPS = 2\n")
    path = written(tmp_path, end="import beside_it")
    assert audited(capsys, path)[0] == 0


def test_rules_can_be_ignored_by_code_by_theme_and_on_the_line(tmp_path, capsys):
    wrong = written(tmp_path, wrong=True)
    for option in ("GP101", "GP1", "gp101"):
        assert audited(capsys, "--ignore", option, wrong)[0] == 0
    assert audited(capsys, "--ignore", "GP2", wrong)[0] == 1
    assert audited(capsys, written(tmp_path, wrong=True, comment="  # gradparity: ignore GP101"))[0] == 0
    assert audited(capsys, written(tmp_path, wrong=True, comment="  # gradparity: ignore GP202"))[0] == 1


def test_json_has_the_verdict_the_lines_and_what_the_loop_does(tmp_path, capsys):
    output = tmp_path / "report.json"
    audited(capsys, "--format", "json", "--output", str(output), written(tmp_path, wrong=True))
    found = json.loads(output.read_text())
    assert (found["verdict"], found["steps"], found["exit_code"]) == ("wrong", 6, 0)
    [finding] = found["findings"]
    assert finding["code"] == "GP101"
    assert finding["line"]["line"] == 9
    assert finding["line"]["source"].endswith(".backward()")
    assert found["does"]


def test_sarif_names_rule_file_and_line(tmp_path, capsys):
    output = tmp_path / "report.sarif"
    path = written(tmp_path, wrong=True)
    audited(capsys, "--format", "sarif", "--output", str(output), path)
    [run] = json.loads(output.read_text())["runs"]
    [result] = run["results"]
    assert (result["ruleId"], result["level"]) == ("GP101", "error")
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == (path, 9)


def test_sarif_names_files_of_the_repository_relative_to_it(tmp_path, capsys, monkeypatch):
    written(tmp_path, wrong=True, end="import os; os.chdir('/')")
    monkeypatch.chdir(tmp_path)
    audited(capsys, "--format", "sarif", "--output", "report.sarif", "train.py")
    [run] = json.loads((tmp_path / "report.sarif").read_text())["runs"]
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "train.py"


def test_a_report_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    code, out, err = audited(capsys, "--output", str(tmp_path / "no" / "report"), written(tmp_path))
    assert (code, out) == (2, ""), "the script has not run in vain"
    assert "cannot be written" in err


@pytest.mark.parametrize("code", RULES)
def test_each_rule_has_a_page(code, capsys):
    found, out, _ = audited(capsys, "--explain", code.lower())
    assert found == 0
    assert out.startswith(f"{code} {RULES[code].name}")
    assert RULES[code].why in out
    assert "Write instead:" in out


def test_readme_shows_what_an_audit_prints(capsys):
    root = Path(__file__).parents[2]
    command = "$ gradparity audit tests/auditing/clips_too_early.py"
    _, _, shown = (root / "README.md").read_text().partition(command)
    lines = [line for line in shown.partition("```")[0].splitlines() if line and line != "..."]
    assert len(lines) == 4
    _, _, err = audited(capsys, str(root / "tests" / "auditing" / "clips_too_early.py"))
    assert all(line.removesuffix(" ...") in err for line in lines)
