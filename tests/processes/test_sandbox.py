"""A function in a separate process: its result comes back, and nothing else that it does there has an effect here."""

import faulthandler
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest
import torch

from gradparity.errors import UserError
from gradparity.processes import sandbox as module
from gradparity.processes.sandbox import run_in_subprocess
from patience import with_some_patience

state = []


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"  # dead, and its exit code not yet read


def wait_until(holds):
    """Wait for longer than any machine needs."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pid_in(file):
    """Return the number of the process that writes it to ``file``."""
    wait_until(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def test_the_result_comes_back_and_changes_stay_there():
    def work(limit):
        with limit.on("it"):
            state.append(1)
        return os.getpid(), list(state)

    pid, there = run_in_subprocess(work, 60)
    assert pid != os.getpid()
    assert (there, state) == ([1], [])
    assert gone(pid)


def test_the_sandbox_finds_no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", here := "0")
    assert run_in_subprocess(lambda _: (os.environ["CUDA_VISIBLE_DEVICES"], torch.cuda.is_available()), 60) == (
        "",
        False,
    )
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == here


def test_a_fork_that_cannot_compute_gradients_gets_one_sentence(monkeypatch):
    """As on a machine with a GPU, after gradients were computed here."""
    here, backward = os.getpid(), torch.Tensor.backward

    def as_torch_does(tensor):
        if os.getpid() != here:
            raise RuntimeError("Unable to handle autograd's threading in combination with fork-based multiprocessing.")
        backward(tensor)

    monkeypatch.setattr(torch.Tensor, "backward", as_torch_does)
    with pytest.raises(UserError, match=r"^this process has already computed gradients and torch finds a GPU, .+=$"):
        run_in_subprocess(lambda _: None, 60)


def test_an_exception_is_raised_here_with_its_traceback_there():
    def work(limit):
        raise LookupError("nowhere")

    with pytest.raises(LookupError, match="nowhere") as raised:
        run_in_subprocess(work, 60)
    assert "in work\n    raise LookupError" in raised.value.__notes__[0]

    def wrong(limit):
        raise UserError("your fault")

    with pytest.raises(UserError, match="your fault") as raised:
        run_in_subprocess(wrong, 60)
    assert not hasattr(raised.value, "__notes__")


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (lambda: os._exit(0), "it ended its process with exit code 0, as os._exit does; make it return instead"),
        (lambda: os._exit(3), "it ended its process with exit code 3, as os._exit does; make it return instead"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "it was killed by SIGTERM: sent by itself, by another process, or for lack of"),
        (os.abort, r"it crashed its process with SIGABRT \(test_sandbox.py, line \d+ in work\); fix that first"),
    ],
)  # fmt: skip
def test_an_end_without_a_result_is_described(end, sentence):
    def work(limit):
        with limit.on("it"):
            end()

    with pytest.raises(UserError, match=sentence):
        run_in_subprocess(work, 60)


def test_the_line_of_a_crash_is_known_though_a_library_reset_the_signal():
    """Lightning's Trainer does so when it ends; Python does not know of the handler that ``faulthandler`` set."""

    def work(limit):
        with limit.on("it"):
            os.abort()

    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    with pytest.raises(UserError, match=r"it crashed its process with SIGABRT \(test_sandbox.py, line \d+ in work\)"):
        run_in_subprocess(work, 60)


def test_user_code_that_does_not_finish_is_reported_with_its_line():
    def work(limit):
        with limit.on("it"):
            time.sleep(1000)

    def attempt(seconds):
        with pytest.raises(UserError) as output:
            run_in_subprocess(work, seconds)
        said = rf"it has not finished after {seconds:g} s \(test_sandbox.py, line \d+ in work\); make it return"
        assert re.match(said, str(output.value))

    with_some_patience(attempt)


def test_only_user_code_counts_against_the_time_limit():
    def attempt(seconds):
        def work(limit):
            for _ in range(4):
                time.sleep(seconds / 3)
                with limit.on("it"):
                    time.sleep(0.01)
            return "done"

        try:
            assert run_in_subprocess(work, seconds) == "done"
        except UserError as late:
            raise AssertionError from late

    with_some_patience(attempt)


def test_a_process_that_cancels_its_alarm_is_ended_by_its_parent(monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.2)

    def work(limit):
        with limit.on("it"):
            faulthandler.cancel_dump_traceback_later()
            time.sleep(60)

    with pytest.raises(UserError, match=r"it has not finished after 0.2 s; make it"):
        run_in_subprocess(work, 0.2)


def test_an_orphan_ends_by_itself(tmp_path):
    """It becomes one when the process that waits for it is killed."""

    def work(limit):
        (tmp_path / "pid").write_text(str(os.getpid()))
        with limit.on("it"):
            time.sleep(60)

    waiting = multiprocessing.get_context("fork").Process(target=run_in_subprocess, args=(work, 0.5))
    waiting.start()
    pid = pid_in(tmp_path / "pid")
    waiting.kill()
    waiting.join()
    wait_until(lambda: gone(pid))


def test_everything_that_it_started_ends_with_it():
    def work(limit):
        with limit.on("it"):
            threading.Thread(target=time.sleep, args=(60,)).start()
            inner = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            inner.start()
            return os.getpid(), inner.pid, subprocess.Popen(["sleep", "60"]).pid

    for pid in run_in_subprocess(work, 60):
        wait_until(lambda pid=pid: gone(pid))


def test_an_interrupt_from_a_terminal_ends_both(tmp_path):
    def work(limit):
        (tmp_path / "pid").write_text(str(os.getpid()))
        with limit.on("it"):
            time.sleep(600)

    def interrupt():
        pid_in(tmp_path / "pid")
        # Python drops an interrupt that comes while it still runs its own functions after a fork.
        wait_until(lambda: "_wait_for_answer" in functions_of(main))
        os.kill(os.getpid(), signal.SIGINT)

    def functions_of(thread):
        return [frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._current_frames()[thread])]

    main = threading.get_ident()
    # A process that a shell starts in the background ignores interrupts; these tests may be one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            run_in_subprocess(work, 600)
    finally:
        signal.signal(signal.SIGINT, before)
    assert gone(pid_in(tmp_path / "pid"))


def test_it_reads_no_input_and_its_output_goes_to_stderr(capfd):
    def work(limit):
        print("by Python", flush=True)
        os.write(1, b"by the system\n")
        return sys.stdin.read(), os.read(0, 10)

    assert run_in_subprocess(work, 60) == ("", b"")
    out, err = capfd.readouterr()
    assert not out
    assert "by Python" in err
    assert "by the system" in err


def test_a_large_result_comes_back_whole():
    assert len(run_in_subprocess(lambda limit: b"x" * 10_000_000, 60)) == 10_000_000


def test_without_forks_it_runs_here(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])

    def work(limit):
        with limit.on("it"):
            return os.getpid()

    assert run_in_subprocess(work, 60) == os.getpid()
