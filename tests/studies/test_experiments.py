"""Every experiment runs, answers in a sentence, and exits with what it found."""

import os
import pty
import re
import runpy
import subprocess
import sys
from functools import partial

import pytest
import torch
from matplotlib.figure import Figure

from gradparity.studies.fault_scores.score import Score
from gradparity.tensorboard import map_picture
from scripts import EXPERIMENTS, run

README = EXPERIMENTS.parent / "README.md"
SMALL = ["--steps", "4", "--microbatch_size", "4", "--evaluate_every", "2", "--clip.threshold", "0.05"]


@pytest.fixture
def no_pictures(monkeypatch):
    """Which are half of the time of so short a training, and have tests of their own."""
    monkeypatch.setattr(map_picture, "draw_overview", lambda *_: Figure(figsize=(1, 1)))
    monkeypatch.setattr(map_picture, "draw_phase", lambda *_: Figure(figsize=(1, 1)))


LESSONS = {
    "calculus_tour.py": [],
    "claims.py": [],
    "train_two_ways.py": SMALL,
    "matrix.py": ["--task", "additive", "--processes", "1"],
    "routes_that_differ.py": ["--only", "reversed order, K = 2", "--steps", "1"],
    "lightning_two_ways.py": [],
    "frameworks.py": ["--only", "ignite", "--scenario", "K = 1"],
    "distributed.py": ["--steps", "1"],
    "watch_a_loop.py": [],
    "audit_any_loop.py": [],
    "faults.py": ["--only", "naive"],
}
"""Scripts in the order in which they build on each other, and what makes each a matter of seconds."""


def one_scenario(script):
    del script["SCENARIOS"][1:]


def one_training(script):
    launch, sharded = script["launch"], script["measure_sharded"]
    script["launch"] = lambda work, *given, **more: [[]] if work is sharded else launch(work, *given, **more)
    for name in script["TRIALS"].keys() - {"manual"}:
        del script["TRIALS"][name]


def as_documented(script):
    script["score"] = lambda fault: Score(fault, diverged=True, named=True, same=(), first=fault.first)


SLICES = {"lightning_two_ways.py": one_scenario, "distributed.py": one_training, "faults.py": as_documented}
"""Of what a script has no option for; other tests run it as it is."""

SAME_EVERYWHERE = ["claims.py"]
"""Whose default run is that of these tests, and whose answer does not hang on the machine."""

SLOW = {"distributed.py": pytest.mark.long, "faults.py": pytest.mark.slow, "watch_a_loop.py": pytest.mark.long}

WHOLE = {"calculus_tour.py", "claims.py", "matrix.py", "routes_that_differ.py"}
"""Run as a process of its own, and not only asked for its help: what it does is the same in ours."""

OF_THEIR_OWN = {"benchmark.py"}
"""Whose answer is a time."""


def rows():
    """README's table of experiments: script, question, answer."""
    section = README.read_text().split("## Experiments")[1].split("\n## ")[0]
    return re.findall(r"^\| `experiments/(\w+\.py)` \| (.*?) \| `(.*?)` \|$", section, re.MULTILINE)


def loaded(script):
    found = runpy.run_path(str(EXPERIMENTS / script))
    SLICES.get(script, lambda _: None)(found)
    return found


def without_figures(sentence):
    return re.sub(r"\d[\d,]*(\.\d+)?(e[+-]\d+)?", "#", sentence)


def test_readme_and_these_tests_list_all_experiments_in_order():
    scripts = {path.name for path in EXPERIMENTS.glob("*.py")}
    assert len(scripts) >= 10
    assert scripts - OF_THEIR_OWN == LESSONS.keys()
    assert [script for script, _, _ in rows() if script not in OF_THEIR_OWN] == list(LESSONS)
    assert {script for script, _, _ in rows()} == scripts


@pytest.mark.parametrize("script", sorted(path.name for path in EXPERIMENTS.glob("*.py")))
def test_a_docstring_holds_the_question_and_two_sentences(script):
    docstring = (EXPERIMENTS / script).read_text().split('"""')[1]
    question, *told = [line for line in docstring.splitlines() if line.strip()]
    assert question.endswith("?")
    assert len(told) == 2
    assert all(line.endswith(".") for line in told)
    (asked,) = (asked for name, asked, _ in rows() if name == script)
    assert asked.replace("`", "") == question


@pytest.mark.parametrize("script", LESSONS)
def test_help_shows_the_common_options(script, capsys):
    with pytest.raises(SystemExit) as stopped:
        loaded(script)["main"](["--help"])
    assert stopped.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "--quiet" in out
    assert "--output" in out


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("script", [pytest.param(script, marks=SLOW.get(script, ())) for script in LESSONS])
def test_quiet_prints_only_the_answer_that_readme_shows(script, tmp_path, capsys):
    assert loaded(script)["main"]([*LESSONS[script], "--quiet", "--output", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert not {"\x1b", "\r"} & set(out)
    (answer,) = out.replace(torch.__version__, "2.13.0+cpu").splitlines()
    assert answer.endswith(".")
    (shown,) = (shown for name, _, shown in rows() if name == script)
    assert without_figures(shown) == without_figures(answer)
    if script in SAME_EVERYWHERE:
        assert shown == answer
    assert list(tmp_path.rglob("events.out.tfevents.*")), "there is something to see in TensorBoard"


@pytest.mark.long
@pytest.mark.parametrize("script", LESSONS)
def test_the_script_runs_from_the_command_line(script, tmp_path):
    whole = script in WHOLE
    arguments = [*LESSONS[script], "--quiet"] if whole else ["--help"]
    command = [sys.executable, "-W", "error", EXPERIMENTS / script, *arguments, "--output", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1 if whole else "--quiet" in done.stdout


def test_a_changed_answer_would_be_seen():
    assert without_figures("3 of 3 hold, at most 1,024 ULP and 8.9e-16.") == "# of # hold, at most # ULP and #."
    assert without_figures("3 of 3 hold.") != without_figures("3 of 3 held.")


def test_two_ways_are_the_same_training(tmp_path):
    done = run(
        "train_two_ways.py", *SMALL, "--precision", "fp16", "--task", "[digits_mlp,digits_cnn]", "--output", tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Identical, bit for bit: 4 steps") == 2
    assert "2 of 2 trainings are identical both ways." in done.stdout
    assert f"--logdir {tmp_path}/two_ways/1" in done.stdout
    assert "│ ✗" not in done.stdout
    for task in ("digits_mlp", "digits_cnn"):
        assert {p.name for p in (tmp_path / "two_ways" / "1" / task).iterdir()} == {
            "by_backward",
            "by_manual",
            "how_far_apart",
            "differences.jsonl",
            "checkpoint.zip",
        }


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        pytest.param(
            "naive",
            "At step 0, microbatch 0, phase accumulated, position_correction.grad has its own memory",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "summed-loss",
            "At step 0, microbatch 2, phase accumulated, the gradient of position differs.",
            marks=pytest.mark.long,
        ),
        ("clip-before-unscale", "At step 0, phase unscaled, the gradient of position differs."),
    ],
)
def test_a_wrong_loop_is_reported_with_its_first_difference(candidate, words, tmp_path):
    done = run(
        "train_two_ways.py", *SMALL, "--precision", "fp16", "--task", "transformer", "--candidate", candidate,
        "--output", tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert words in done.stdout
    assert "Not identical" in done.stdout
    assert "0 of 1 trainings are identical both ways; transformer diverges at step 0, " in done.stdout


FP16 = ["train_two_ways.py", *SMALL, "--precision", "fp16", "--candidate", "clip-before-unscale"]


@pytest.mark.usefixtures("no_pictures")
def test_quiet_prints_only_the_answer(tmp_path):
    quiet = run(*FP16, "--output", tmp_path, "--quiet", COLUMNS="400")
    assert (quiet.returncode, quiet.stderr) == (1, "")
    assert quiet.stdout == (
        "0 of 1 trainings are identical both ways; "
        "digits_mlp diverges at step 0, phase unscaled: the gradient of 1.weight differs.\n"
    )


@pytest.mark.long
def test_a_separate_process_exits_with_1_and_prints_plain_text_to_a_pipe(tmp_path):
    command = [sys.executable, *FP16, "--output", tmp_path]
    environment = {**os.environ, "COLUMNS": "400", "FORCE_COLOR": ""}
    told = subprocess.run(command, cwd=EXPERIMENTS, capture_output=True, text=True, check=False, env=environment)
    assert (told.returncode, told.stderr) == (1, "")
    assert "0 of 1 trainings are identical both ways; digits_mlp diverges at step 0, phase unscaled" in told.stdout
    assert not {"\x1b", "\r"} & set(told.stdout)
    assert "━━━━━ " not in told.stdout, "nothing is left of the progress bar"


def test_a_terminal_shows_progress_with_an_estimate_and_respects_no_color(tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, EXPERIMENTS / "train_two_ways.py", *SMALL, "--output", tmp_path]
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm-256color", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment):
        os.close(theirs)
        seen = b"".join(iter(partial(read_or_nothing, ours), b"")).decode()
    os.close(ours)
    assert re.search(r"digits_mlp .* \d/4 +(\d:\d\d:\d\d|-:--:--) +left", seen)
    assert not re.search("\x1b\\[[0-9;]*(3[0-7]|38|4[0-7]|9[0-7])[;m]", seen), "no color"


def read_or_nothing(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other side is closed
        return b""


@pytest.mark.long
def test_the_route_makes_no_difference_to_lightning_and_differences_are_named(tmp_path):
    done = run("lightning_two_ways.py", "--output", tmp_path, COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split("│")[1].strip(): line.count("identical") for line in done.stdout.splitlines() if "│" in line}
    assert rows == {
        "fp64, K = 1": 4,
        "fp32, K = 3": 4,
        "fp32, K = 3, a partial last window": 0,
        "bf16, K = 3": 4,
        "fp16, K = 3": 2,
        "fp16, K = 3, an overflow": 0,
        "fp16, K = 3, compared with clip-before-unscale": 2,
    }
    assert "It makes no difference to Lightning which way fills p.grad.\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], "steps is 0"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--device", "cuda"], "no GPU"),
        (["--output", __file__], "--output"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = run("train_two_ways.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
