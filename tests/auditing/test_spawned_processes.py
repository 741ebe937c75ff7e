"""Processes that a script starts to train in are audited where they run, and the first process reports."""

import multiprocessing
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

import gradparity
from audited_loops import X, Y, loss_of, never_zeroed, small
from gradparity.auditing.scripts import spawned_processes
from gradparity.auditing.scripts.spawned_processes import Audited, Enough, Spawned, go_on

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def worker(rank, folder, right, barrier=True):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0 if right else rank)
    model, optimizer = small()
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(model, X[rank::2], Y[rank::2]).backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= 2
        optimizer.step()
    Path(folder, f"finished{rank}").touch()
    dist.destroy_process_group()


@pytest.fixture
def loopback(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")


@pytest.mark.parametrize("right", [True, False])
def test_two_ranks_that_a_program_starts_have_one_verdict(right, tmp_path, loopback):
    with gradparity.audit() as audit:
        torch.multiprocessing.start_processes(worker, (str(tmp_path), right), nprocs=2, start_method="fork")
    assert [f.rule.code for f in audit.report.findings] == ([] if right else ["GP756"])
    assert audit.report.does[0].text.startswith("2 ranks train together")
    assert audit.report.steps == 4
    assert (tmp_path / "finished1").exists()


def started(*targets):
    with gradparity.audit() as audit:
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=target, args=arguments) for target, arguments in targets]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    return audit.report, [process.exitcode for process in processes]


def fails():
    never_zeroed(True)
    raise ValueError("on purpose")


def test_plain_processes_are_audited_and_end_as_they_would(capfd):
    report, codes = started((never_zeroed, (True,)), (never_zeroed, (False,)), (fails, ()))
    assert codes == [0, 0, 1]
    assert [(f.rule.code, f.sentence.rpartition(", ")[2]) for f in report.findings] == [("GP101", "in process 1")]
    assert report.does[0].text.startswith("3 processes")


def test_processes_of_libraries_and_of_no_training_are_left_alone():
    own = Spawned(20, go_on)
    assert own._around(multiprocessing.Pool) is None
    assert own._around(None) is None
    assert own._around(partial(print)) is None
    assert own._folder is None
    report, codes = started((print, ()))
    assert (codes, report.verdict) == ([0], "not judged")


def raising(*_, **__):
    raise ZeroDivisionError("ours")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Spawned, "_around"),
        (spawned_processes, "mkdtemp"),
        (spawned_processes, "write_facts"),
        (spawned_processes, "read_facts"),
    ],
)
def test_an_error_of_ours_ends_no_process(owner, name, monkeypatch):
    monkeypatch.setattr(owner, name, raising)
    _, codes = started((never_zeroed, (True,)))
    assert codes == [0]


def test_once_enough_steps_were_watched_a_process_ends_as_the_script_does(tmp_path):
    def stop():
        raise Enough

    def loop():
        never_zeroed(True)
        raise AssertionError("not reached")

    Audited(loop, 2, stop, tmp_path / "facts")()
    assert (tmp_path / "facts").exists()


@pytest.mark.long
def test_a_script_that_spawns_is_audited_from_the_command_line(tmp_path, loopback):
    script = Path(__file__).read_text().replace("pytestmark =", "_ =")
    start = "torch.multiprocessing.spawn(worker, (sys.argv[1], False), nprocs=2)"
    (tmp_path / "train.py").write_text(f"{script}\n\nif __name__ == '__main__':\n    {start}\n")
    done = subprocess.run(
        [sys.executable, "-m", "gradparity", "audit", "train.py", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "GP756 weights-differ-between-ranks" in done.stderr
