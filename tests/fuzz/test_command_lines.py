"""Command lines of anybody, for every command and every experiment: each begins its work, or is refused in a sentence."""

import importlib.util
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradparity.cli import audit, check
from gradparity.cli.main import COMMANDS, main
from gradparity.studies.claims import command as claims
from hostile import NUMBERS, TEXTS, Started, cases, one_sentence, within

EXPERIMENTS = sorted(Path(__file__).parents[2].joinpath("experiments").glob("*.py"))

WORK = {
    "audit_any_loop": "audited_loop", "benchmark": "measure", "calculus_tour": "steps", "distributed": "launch", "faults": "score", "frameworks": "framework_outcome", "lightning_two_ways": "compare",
    "matrix": "run_cells", "routes_that_differ": "variant_outcome", "train_two_ways": "train", "watch_a_loop": "watch",
}  # fmt: skip
"""What each experiment calls when it has understood what is wanted."""


def starts(*_, **__):
    raise Started


def without_work(path):
    """The ``main`` of an experiment, which ends where its work would begin."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if path.stem != "claims":  # whose work is that of the command, below
        assert callable(getattr(module, WORK[path.stem]))
        setattr(module, WORK[path.stem], starts)
    return module.main


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """By name; each with the options that its help names. All run in a folder of their own."""
    patch = pytest.MonkeyPatch()
    patch.setattr(claims, "torch", SimpleNamespace(set_num_threads=starts))  # which it does when all is understood
    patch.setattr(check, "check", starts)
    patch.setattr(audit, "run", starts)
    patch.setenv("COLUMNS", "80")
    mains = {path.stem: without_work(path) for path in EXPERIMENTS}
    mains |= {name: lambda rest, name=name: main([name, *rest]) for name in COMMANDS}
    mains["gradparity"] = main
    with within(tmp_path_factory.mktemp("commands")) as folder:
        (folder / "file").touch()
        os.mkfifo(folder / "pipe")
        yield {name: (run, options(run)) for name, run in mains.items()}
    patch.undo()


def options(run):
    return sorted(set(re.findall(r"--[a-z][\w.-]*", one_sentence(lambda: run(["--help"])).out)))


def test_every_experiment_is_here_and_has_options(commands):
    assert len(EXPERIMENTS) >= 11
    assert set(WORK) | {"claims"} == {path.stem for path in EXPERIMENTS}
    assert all(
        "--help" in options or name in ("gradparity", "train_two_ways") for name, (_, options) in commands.items()
    )
    assert "--optimizer.lr" in commands["train_two_ways"][1]


def can_be_typed(text):
    """The system ends an argument at a zero byte, and gives bytes that are no text as lone surrogates of its own.

    And no folder is made outside that of the test.
    """
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return "\0" not in text and ".." not in text and not text.startswith("/")


PATHS = st.sampled_from(
    ["file", "pipe", "/dev/null", "/dev/zero", "/proc/self/mem", ".", "", "\udcff", "a" * 300, "a/" * 3000, "missing"]
)
LOOPS = st.sampled_from(
    [":", "a:", ":b", "os:system", "os:abort", "builtins:exec", "builtins:dict", "sys:exit", ".:x", "..a:b", ".os:path", "evil:Evil", "a:b:c",
     "os.path:join", "os:path.join", "os:", "os:nothing", "evil.x:y", "a/b:c", "\x1b:x", "torch:nn.Linear", "json:dumps.__call__", "1:2"]
)  # fmt: skip
VALUES = NUMBERS.map(lambda number: f"{number:.6g}" if isinstance(number, float) else hex(number)) | st.integers(
    0, 3
).map(str)
TYPED = (TEXTS | VALUES).filter(can_be_typed) | PATHS | LOOPS


@st.composite
def lines(draw, options):
    """Options with and without values, values alone, in any order."""
    words = []
    for _ in range(draw(st.integers(0, 4))):
        option, value = draw(st.sampled_from(options or ["-x"])), draw(TYPED)
        words += draw(
            st.sampled_from([[option], [option, value], [f"{option}={value}"], [value], [option[:-1], value]])
        )
    return words


NAMES = [path.stem for path in EXPERIMENTS] + [*COMMANDS, "gradparity"]


@pytest.mark.parametrize("name", NAMES)
@cases(6, share=0.07)
@given(data=st.data())
def test_a_command_line_may_hold_anything(commands, name, data):
    run, options = commands[name]
    arguments = data.draw(lines(options))
    one_sentence(lambda: run(arguments))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("train_two_ways", ["--threads", "100000"]),
        ("train_two_ways", ["--config", "pipe"]),
        ("train_two_ways", ["--config", "/dev/zero"]),
        ("matrix", ["--processes", "1000000"]),
        ("benchmark", ["--rounds", "1000000000"]),
        ("distributed", ["--ranks", "1000"]),
        ("calculus_tour", ["--n", "100000000000"]),
        ("routes_that_differ", ["--steps", "100000000000"]),
        ("faults", ["--output", "file"]),
        ("watch_a_loop", ["--output", "file\nname"]),
        ("audit", ["--output", "pipe", "file"]),
        ("audit", ["--output", "a" * 300, "file"]),
        ("audit", ["--tensorboard", "file", "file"]),
        ("audit", ["--ignore", "", "file"]),
        ("show", ["a" * 300]),
        ("show", ["pipe"]),
        ("diff", ["a" * 300, "a" * 300]),
        ("diff", ["pipe", "pipe"]),
        ("diff", ["new\nline", "file"]),
        ("claims", ["--output", "file"]),
    ],
)
def test_what_would_take_all_there_is_or_cannot_be_is_refused(commands, name, arguments):
    (Path("file\nname")).touch()
    assert one_sentence(lambda: commands[name][0](arguments)).code == 2


@pytest.mark.parametrize("name", ["train_two_ways", "matrix", "claims", "watch_a_loop"])
def test_what_is_right_begins(commands, name, tmp_path):
    with pytest.raises(Started):
        commands[name][0](["--output", str(tmp_path)])
