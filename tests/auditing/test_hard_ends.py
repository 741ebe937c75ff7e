"""A script may end in any way, and what was seen until then is reported, with the audit's own exit code."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from gradparity.cli.main import main

STEPS = """
import atexit, os, signal, sys, time, torch
from torch import nn
def train(steps, zero=True):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        if zero:
            optimizer.zero_grad()
        model(torch.ones(2, 4)).mean().backward()
        optimizer.step()
"""


def written(tmp_path, code):
    path = tmp_path / "train.py"
    path.write_text(STEPS + code)
    return str(path)


def started(*arguments, **options):
    """A process of its own, since it ends in ways that would end this one too."""
    command = [sys.executable, "-m", "gradparity", "audit", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ended(*arguments, **options):
    process = started(*arguments, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, " ".join(err.split())


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os._exit(3)", "train.py ended with exit code 3 (by os._exit)"),
        pytest.param(
            "os.execlp(sys.executable, sys.executable, '-c', 'raise SystemExit(1)')",
            "train.py ended with exit code 0 (by os.execv; the program that it became is not watched)",
            marks=pytest.mark.long,
        ),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", "train.py ended with exit code 143 (terminated)"),
        pytest.param(
            "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
            "train.py ended with exit code 130 (interrupted)",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_sudden_end_does_not_lose_the_report(end, words, tmp_path):
    code, out, err = ended(written(tmp_path, f"train(3, zero=False)\n{end}\nprint('not here')\n"))
    assert (code, out) == (1, "")
    assert "wrong GP101 gradients-left-over" in err
    assert "3 steps watched" in err
    assert words in err
    assert "Traceback" not in err


@pytest.mark.long
def test_a_signal_from_outside_is_one_sentence(tmp_path):
    path = written(tmp_path, "train(3)\nprint('ready', flush=True)\nwhile True:\n    time.sleep(0.1)\n")
    process = started(path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "3 steps watched" in " ".join(err.split())
    assert "ended with exit code 143 (terminated)" in err


@pytest.mark.long
def test_a_handler_of_the_script_is_not_ours_to_replace(tmp_path):
    handler = "signal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\n"
    code, out, _ = ended(written(tmp_path, f"{handler}train(2)\nos.kill(os.getpid(), signal.SIGTERM)\nprint('on')\n"))
    assert (code, out) == (0, "mine\non\n")


@pytest.mark.parametrize(
    "closing",
    [
        "os.close(2); log = open('log', 'w')",
        pytest.param("sys.stderr.close()", marks=pytest.mark.long),
        pytest.param("sys.stderr = None", marks=pytest.mark.long),
    ],
)
def test_a_closed_stderr_still_gets_the_report_and_no_file_of_the_script_does(closing, tmp_path):
    code, _, err = ended(written(tmp_path, f"{closing}\ntrain(3, zero=False)\nsys.exit('bye')\n"), cwd=tmp_path)
    assert code == 1
    assert "wrong GP101 gradients-left-over" in err
    assert not (tmp_path / "log").exists() or (tmp_path / "log").read_text() in ("", "bye\n")


def test_a_process_that_it_forks_by_hand_has_its_own_exit_code_and_no_report(tmp_path):
    forks = """
train(2)
child = os.fork()
if not child:
    sys.exit(4)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    code, out, err = ended(written(tmp_path, forks))
    assert (code, out) == (0, "4\n")
    assert err.count("gradparity audit of") == 1


def test_processes_that_it_forks_end_as_they_would(tmp_path):
    forks = """
def wait(): time.sleep(60)
if __name__ == "__main__":
    import multiprocessing
    train(2)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=wait)
    child.start(); child.terminate(); child.join(20)
    other = context.Process(target=train, args=(2,))
    other.start(); other.join()
    print(child.exitcode, other.exitcode)
"""
    code, out, err = ended(written(tmp_path, forks))
    assert (code, out) == (0, "-15 0\n")
    assert err.count("gradparity audit of") == 1


@pytest.mark.long
def test_a_script_that_trains_in_another_program_is_not_judged_and_says_why(tmp_path):
    again = "import subprocess\nsubprocess.run([sys.executable, __file__, 'x']) if len(sys.argv) == 1 else train(2)\n"
    code, out, err = ended(written(tmp_path, f"{again}print('done')\n"))
    assert (code, out) == (2, "done\ndone\n")
    assert "no torch optimizer made a step, so nothing was judged" in err
    assert "the script started processes of its own, which are not watched" in err


def audited(capsys, *arguments):
    code = main(["audit", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_workers_of_a_data_loader_are_no_trouble(tmp_path, capsys):
    loads = """
from torch.utils.data import DataLoader, TensorDataset
for epoch in range(2):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for (x,) in DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=2, num_workers=2):
        optimizer.zero_grad()
        model(x).mean().backward()
        optimizer.step()
"""
    code, _, err = audited(capsys, written(tmp_path, loads))
    assert code == 0
    assert "nothing wrong, nothing unusual" in err
    assert "4 steps watched" in " ".join(err.split())


def test_a_script_may_change_its_folder(tmp_path, capsys, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    written(tmp_path, "train(3, zero=False)\nos.chdir('elsewhere')\n")
    monkeypatch.chdir(tmp_path)
    code, _, _ = audited(capsys, "--format", "json", "--output", "report.json", "train.py")
    os.chdir(tmp_path)
    [finding] = json.loads((tmp_path / "report.json").read_text())["findings"]
    assert code == 1
    assert finding["line"]["source"] == "model(torch.ones(2, 4)).mean().backward()"


def test_a_script_sees_what_python_shows_it(tmp_path, capsys, monkeypatch):
    shows = "print(sys.argv, __name__, os.path.isabs(__file__), sys.path[0], sys.modules['__main__'].train is train)\n"
    written(tmp_path, shows)
    monkeypatch.chdir(tmp_path)
    plain = subprocess.run([sys.executable, "train.py", "x"], capture_output=True, text=True, check=True).stdout
    before = sys.argv, sys.modules["__main__"]
    assert audited(capsys, "train.py", "x")[1] == plain
    assert (sys.argv, sys.modules["__main__"]) == before


def test_threads_of_the_script_are_waited_for(tmp_path, capsys):
    threads = "import threading\nthreading.Thread(target=lambda: (time.sleep(0.2), train(3, zero=False))).start()\n"
    code, _, err = audited(capsys, written(tmp_path, threads))
    assert code == 1
    assert "3 steps watched" in " ".join(err.split())


@pytest.mark.long
def test_a_pool_of_processes_that_the_script_leaves_open_ends(tmp_path):
    pool = "from concurrent.futures import ProcessPoolExecutor\n"
    pool += "if __name__ == '__main__':\n    pool = ProcessPoolExecutor(1)\n    print(pool.submit(abs, -3).result())\n    train(3)\n"
    code, out, err = ended(written(tmp_path, pool))
    assert (code, out) == (0, "3\n")
    assert "3 steps watched" in err


def test_a_pool_that_the_script_leaves_open_ends_with_its_work(tmp_path, capsys):
    """Python ends the threads of pools before it waits for any; until then they wait for more work."""
    own = ThreadPoolExecutor(1)  # runs before the script, as an import's may
    assert own.submit(lambda: 1).result() == 1
    pool = "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\npool.submit(train, 3, False)\n"
    code, _, err = audited(capsys, written(tmp_path, pool))
    assert code == 1
    assert "3 steps watched" in " ".join(err.split())
    assert own.submit(lambda: 2).result(timeout=60) == 2, "it goes on"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("x = 1\nfor x in\n", "train.py, line 2: invalid syntax; Python cannot read the script"),
        ("def f():\nx\n", "train.py, line 2: expected an indented block after function definition on line 1"),
        ("x = 'caf\udce9'\n", "train.py"),
        ("PK\0\0", "train.py"),
    ],
)
def test_a_script_that_python_cannot_read_is_one_sentence(content, sentence, tmp_path, capsys, monkeypatch):
    (tmp_path / "train.py").write_bytes(content.encode("utf-8", "surrogateescape"))
    monkeypatch.chdir(tmp_path)
    for arguments in (("train.py",), ("-m", "train")):
        code, out, err = audited(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"gradparity audit: {sentence if arguments[0] != '-m' else 'train'}")
        assert "Python cannot read the script" in err


def test_a_mistake_in_a_module_that_it_imports_is_shown_as_python_shows_it(tmp_path, capsys):
    (tmp_path / "broken_module.py").write_text("for x in\n")
    code, _, err = audited(capsys, written(tmp_path, "train(2)\nimport broken_module\n"))
    assert code == 0
    assert "broken_module.py" in err
    assert "ended with exit code 1 (SyntaxError" in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", "is a folder; name a file, or a module after -m"),
        ("pipe", "is no file; name a file, or a module after -m"),
        ("a" * 300, "does not exist; name a file, or a module after -m"),
        ("/proc/self/mem", "cannot be read"),
    ],
)
def test_what_is_no_script_is_one_sentence(name, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    code, _, err = audited(capsys, name)
    assert (code, err.count("\n")) == (2, 1)
    assert words in err


@pytest.mark.parametrize("option", ["--output", "--tensorboard"])
def test_a_place_that_cannot_be_written_is_found_before_the_script_runs(option, tmp_path, capsys):
    path = written(tmp_path, "print('ran in vain')\n")
    code, out, err = audited(capsys, option, f"{path}/inside", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot be written" in err


def test_a_disk_that_fills_up_is_one_sentence(tmp_path, capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    code, _, err = audited(capsys, "--output", "/dev/full", written(tmp_path, "train(2)\n"))
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written" in err


def test_an_end_that_is_no_exception_is_reported(tmp_path, capsys):
    code, _, err = audited(capsys, written(tmp_path, "class End(BaseException): pass\ntrain(2)\nraise End('now')\n"))
    assert code == 0
    assert "ended with exit code 1 (End: now)" in err


def test_this_process_is_left_as_it_was(tmp_path, capsys):
    before = os._exit, os.execv, signal.getsignal(signal.SIGTERM), sys.argv, list(sys.path)
    audited(capsys, written(tmp_path, "train(2)\n"))
    assert before == (os._exit, os.execv, signal.getsignal(signal.SIGTERM), sys.argv, list(sys.path))
