"""``torchrun -m gradparity audit script.py``: one verdict from all ranks, printed once, and torchrun's own exit code."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gradparity.auditing.report import Report
from gradparity.auditing.scripts.run_script import Ended
from gradparity.auditing.scripts.run_script import run as run_script
from gradparity.auditing.scripts.torchrun import exit_code, terminated_with_a_report
from gradparity.auditing.watching.watch import Watch

SCRIPT = """
import sys
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = DistributedDataParallel(nn.Linear(4, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
stream = torch.Generator().manual_seed(rank)
for step in range(5):
    if "--fails" in sys.argv and rank == 1 and step == 3:
        raise ValueError("bad batch on rank 1")
    x, y = torch.randn(6, 4, generator=stream), torch.tensor([0, 1, 2] * 2)
    optimizer.zero_grad()
    forward = model.module if "--wrong" in sys.argv else model
    F.cross_entropy(forward(x), y).backward()
    optimizer.step()
sys.stdout.write(f"finished {rank}\\n")  # print() makes several writes under torchrun, which mix with another rank's
dist.destroy_process_group()
"""


def run(tmp_path, *arguments, options=()):
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["--local-addr", "127.0.0.1", "-m", "gradparity", "audit", *options, "train.py", *arguments]
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=180, cwd=tmp_path
    )
    assert not list(Path(tmp_path).glob("gradparity-*")), "nothing is left"
    return done


@pytest.mark.long
def test_a_wrong_script_is_reported_once_and_torchrun_says_why_it_fails(tmp_path):
    done = run(tmp_path, "--wrong")
    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == ["finished 0", "finished 1"]
    assert done.stderr.count("wrong  GP751 gradients-not-exchanged") == 1
    assert "train.py:21: F.cross_entropy(forward(x), y).backward()" in done.stderr
    assert "gradparity audit: wrong (GP751); the report is above" in done.stderr


@pytest.mark.long
def test_a_right_script_is_clean_on_all_ranks(tmp_path):
    done = run(tmp_path, options=("--format", "json", "--output", "report.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["verdict"], found["findings"], found["notes"]) == ("clean", [], [])
    assert found["does"][0]["text"].startswith("2 ranks train together")


@pytest.mark.long
def test_what_was_seen_until_a_rank_failed_is_reported(tmp_path):
    done = run(tmp_path, "--fails")
    assert done.returncode == 1
    assert "ValueError: bad batch on rank 1" in done.stderr
    assert "SGD in 1 group of 2 parameters, weight decay 0, 3 steps watched" in " ".join(done.stderr.split())


def test_sigterm_ends_the_script_and_not_the_report(tmp_path):
    (tmp_path / "waits.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nprint('not reached')\n"
    )
    try:
        with terminated_with_a_report(True):
            ended = run_script(str(tmp_path / "waits.py"), [], Watch())
        assert ended == Ended(143, "terminated")
        os.kill(os.getpid(), signal.SIGTERM)  # while the report is written
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_handler_of_the_user_and_a_single_process_are_left_alone():
    for several, handler in ((False, signal.SIG_DFL), (True, lambda *_: None)):
        signal.signal(signal.SIGTERM, handler)
        try:
            with terminated_with_a_report(several):
                assert signal.getsignal(signal.SIGTERM) is handler
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize(("code", "of_script", "expected"), [(0, 0, 0), (1, 0, 1), (0, 3, 3), (2, 3, 2)])
def test_a_rank_fails_if_its_loop_is_wrong_or_its_script_fails(code, of_script, expected, tmp_path, monkeypatch):
    reason = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(reason))
    assert exit_code(Report(steps=1), code, Ended(of_script)) == expected
    assert reason.exists() == bool(expected)
