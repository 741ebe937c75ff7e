"""The process from which ranks are forked imports what they need once."""

import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing, sys
from gradparity.processes.fork_server import fork_context, start_fork_server

def imported(connection):
    connection.send([name in sys.modules for name in ("colorsys", "wave")])

if __name__ == "__main__":
    start_fork_server("colorsys")
    context = fork_context("wave")
    ours, theirs = context.Pipe()
    context.Process(target=imported, args=(theirs,)).start()
    print(ours.recv())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked there")
def test_a_server_that_was_started_has_imported_what_it_was_given_and_no_more(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    ran = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout == "[True, False]\n"
