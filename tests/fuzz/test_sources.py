"""What the sources never do: run what they read, or show TensorBoard to a network."""

import ast
import re
from pathlib import Path

import pytest

from gradparity.tensorboard import tensorboard_command

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.joinpath("src").rglob("*.py"), *ROOT.joinpath("experiments").glob("*.py")])

RUNS_WHAT_IT_READS = re.compile(
    r"(c?pickle|dill|cloudpickle|marshal|shelve|joblib|runpy)\.\w+|yaml\.(unsafe_load|full_load|load_all)(_all)?|jsonpickle\..*"
    r"|os\.(system|popen)|subprocess\.[a-z]\w+"
)
COMPILES = {"eval", "exec", "compile"}
OF_OUR_OWN = {"faults/patching.py", "faults/custom_fault.py"}
"""They compile the reference step with a few lines changed, of this project's own source."""
STARTS_PYTHON = "auditing/scripts/run_script.py"
"""It runs the script that the user names, as Python would."""
FACTS_ONLY = "auditing/facts_file.py"
"""Its unpickler finds no functions, and no classes but those of facts; tests/auditing/test_facts_file.py tries."""


def name_of(path):
    """The file, seen from the folder of its room's package."""
    return path.as_posix().rpartition("/gradparity/")[2]


def calls(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}, node


def dangers(text, name=""):
    """Calls by which a file could run code."""
    for function, keywords, node in calls(text):
        unsafe = function == "torch.load" and keywords.get("weights_only") != "True"
        unsafe |= function in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False"
        unsafe |= function == "yaml.load" and ast.unparse(node).rpartition(", ")[2] != "Plain)"
        unsafe |= function in COMPILES and name not in {*OF_OUR_OWN, STARTS_PYTHON}
        if (
            unsafe
            or (RUNS_WHAT_IT_READS.fullmatch(function) and name not in (STARTS_PYTHON, FACTS_ONLY))
            or "shell" in keywords
        ):
            yield f"{name}:{node.lineno}: {ast.unparse(node)}"


def test_nothing_that_is_read_is_run():
    assert len(SOURCES) > 150
    found = [call for path in SOURCES for call in dangers(path.read_text(), name_of(path))]
    assert found == []
    loads = [
        keywords for path in SOURCES for function, keywords, _ in calls(path.read_text()) if function == "torch.load"
    ]
    assert len(loads) >= 3


@pytest.mark.parametrize(
    "call",
    ["torch.load(path)", "torch.load(path, weights_only=False)", "pickle.load(file)", "pickle.loads(data)", "yaml.load(text, Loader)",
     "yaml.unsafe_load(text)", "eval(text)", "exec(text)", "np.load(path, allow_pickle=True)", "subprocess.run(text, shell=True)",
     "os.system(text)", "marshal.loads(data)", "joblib.load(path)"],
)  # fmt: skip
def test_each_way_to_run_what_is_read_would_be_found(call):
    assert len(list(dangers(f"def read(path):\n    return {call}\n"))) == 1


def test_only_the_files_that_make_wrong_loops_compile_source():
    compiling = {
        name_of(path) for path in SOURCES for function, _, _ in calls(path.read_text()) if function in COMPILES
    }
    assert compiling == {*OF_OUR_OWN, STARTS_PYTHON}


STARTS = re.compile(r"--logdir\b")
LOOPBACK = re.compile(r"--host[ =\"',]+(localhost|127\.0\.0\.1)\b")


def lines_that_start_tensorboard():
    """Of every file that is shown to people or run."""
    files = [
        *SOURCES,
        *ROOT.glob("*.md"),
        *ROOT.glob("src/**/*.md"),
        ROOT / "Makefile",
        *ROOT.joinpath("tests").rglob("test_*.py"),
    ]
    for path in files:
        if path != Path(__file__):
            for line in path.read_text().splitlines():
                if STARTS.search(line) and "assert" not in line:
                    yield path.name, line


def test_tensorboard_is_started_on_this_machine_alone():
    found = list(lines_that_start_tensorboard())
    assert {"Makefile", "test_browser.py", "folders.py"} <= {name for name, _ in found}
    assert [(name, line) for name, line in found if not LOOPBACK.search(line)] == []


@pytest.mark.parametrize(
    "line",
    ["tensorboard --logdir runs", "tensorboard --logdir runs --host 0.0.0.0", "tensorboard --bind_all --logdir runs"],
)
def test_one_that_listens_to_a_network_would_be_found(line):
    assert STARTS.search(line)
    assert not LOOPBACK.search(line)


def test_the_command_that_is_printed_names_this_machine(tmp_path):
    assert LOOPBACK.search(tensorboard_command(tmp_path))


@pytest.mark.parametrize("text", ["--bind_all", "0.0.0.0"])
def test_no_file_opens_a_port_to_others(text):
    assert [path for path in SOURCES if text in path.read_text()] == []
