"""experiments/distributed.py answers on two ranks as it says, and tells bad input in one sentence."""

import pytest

from scripts import run


@pytest.mark.long
def test_by_hand_is_ddp_and_each_wrong_loop_is_not(tmp_path):
    done = run("distributed.py", "--steps", "5", "--output", tmp_path, COLUMNS="140")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    loops = lines[next(i for i, line in enumerate(lines) if "──" in line) + 1 :][:12]
    same = {line.split("  ")[0].strip(): line.count("✓") for line in loops}
    assert same == {
        "ddp": 4,
        "manual": 4,
        "manual, BatchNorm": 4,
        "manual, in rank order": 4,
        "manual, an overflow": 4,
        "unsynchronised-gradients": 1,
        "averaged-twice": 2,
        "mean-of-rank-means": 2,
        "local-clip": 2,
        "scale-of-each-rank": 1,
        "own-buffers": 3,
        "exchanges-every-microbatch": 2,
    }
    assert "By hand, 4 of 4 trainings equal DDP's on all 2 ranks, bit for bit" in " ".join(done.stdout.split())
    assert list((tmp_path / "distributed" / "1").glob("*/events*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ranks", "1"], "--ranks is 1; allowed is 2 to 8"),
        (["--steps", "0"], "--steps is 0"),
        (["--output", __file__], "--output"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words):
    done = run("distributed.py", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
