"""What is installed is what is here: a wheel built from the sdist works outside the checkout, and says what it needs."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

IMPORTED_AS = {
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "pytorch-ignite": "ignite",
}
BY_PYTEST = {"pytest"}
"""Whoever loads the plugin has it."""
BY_TORCH = {"triton"}
"""PyTorch's builds for CUDA bring it along; without it, plain operations do the same."""


def run(*command, folder, path=()):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "COLUMNS": "120"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr + done.stdout
    return done


def build(kind, source, into):
    """With the build backend that ``pyproject.toml`` names, as it is installed here: nothing is downloaded."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", into]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", folder / sdist.name.removesuffix(".tar.gz"), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder that the wheel is installed in, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
        folder,
    ]
    assert run(*pip, wheel, folder=folder).returncode == 0
    return folder


def test_the_sdist_has_all_that_one_needs_to_work_on_it(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"src", "tests", "experiments", "configs"}
    files = {
        str(path.relative_to(ROOT))
        for top in wanted
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".yaml")
    }
    assert len(files) > 200
    assert files - names == set()
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "constraints.txt", "Makefile"} <= names
    assert [name for name in names if re.match(r"runs/|dist/|\.venv/|.*__pycache__", name)] == []


def test_the_wheel_has_the_package_and_its_license_alone(wheel):
    names = ZipFile(wheel).namelist()
    package = {name for name in names if name.startswith("gradparity/")}
    source = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert package == source
    assert "gradparity/py.typed" in package
    assert {re.sub(r"^[^/]*\.dist-info/", "", name) for name in set(names) - package} == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip


TEST = """
import gradparity
import torch


def make(momentum=0.0):
    model = torch.nn.Linear(3, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)


def train(model, optimizer):
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()


def test_a_loop_is_itself(assert_parity):
    assert_parity(train, train, make)


def test_two_loops_are_recorded():
    assert gradparity.__file__.startswith(f"{SITE}/gradparity/")
    for name, momentum in ("one", 0.0), ("other", 0.9):
        torch.manual_seed(0)
        model, optimizer = make(momentum)
        with gradparity.record(model, optimizer, name):
            train(model, optimizer)
"""


@pytest.mark.long
def test_what_was_installed_works_outside_the_checkout(site, tmp_path):
    (tmp_path / "test_loop.py").write_text(f"SITE = {str(site)!r}\n{TEST}")
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path]
    assert "2 passed" in run(*pytest, "test_loop.py", folder=tmp_path, path=[site]).stdout
    command = site / "bin" / "gradparity"
    assert "usage: gradparity COMMAND" in run(sys.executable, command, "--help", folder=tmp_path, path=[site]).stdout
    other = run(sys.executable, command, "diff", "one", "other", folder=tmp_path, path=[site])
    assert (other.returncode, "Not identical" in other.stdout) == (1, True)


def required(lists):
    """The names of what ``lists`` of requirements want."""
    return {re.match(r"[\w-]+", requirement)[0].lower() for some in lists for requirement in some}


def imported():
    """What the package imports that Python does not bring along."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            yield from (name.partition(".")[0] for name in names)


def test_every_requirement_is_imported_and_every_import_required():
    extras = PROJECT["optional-dependencies"]
    wanted = required([PROJECT["dependencies"], extras["experiments"], extras["frameworks"]])
    wanted = {IMPORTED_AS.get(name, name) for name in wanted}
    found = set(imported()) - set(sys.stdlib_module_names) - {"gradparity"}
    assert len(found) > 10
    assert wanted == found - BY_PYTEST - BY_TORCH


def test_no_requirement_is_named_twice_and_each_has_a_pinned_version():
    pinned = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    for some in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        assert len(some) == len(required([some]))
    everything = required([PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]) - {"gradparity"}
    assert everything - set(pinned) == set()


def test_the_versions_of_python_are_those_of_the_classifiers():
    named = [
        c.rpartition(" ")[2]
        for c in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", c)
    ]
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert named == ["3.11", "3.12", "3.13", "3.14"]
    assert "for CPython 3.11 to 3.14" in (ROOT / "constraints.txt").read_text()
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()
