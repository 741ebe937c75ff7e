"""Configurations from anybody: each is used, or refused in a sentence; none imports, reads or writes what it should not."""

import importlib.util
import sys
from pathlib import Path

import jsonargparse
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gradparity.cli.exit_codes import exit_codes
from gradparity.studies.train_two_ways.command_line import as_yaml, parse_config
from gradparity.studies.train_two_ways.config import LARGEST_NUMBER, Config
from hostile import KINDS, TEXTS, VALUES, cases, one_sentence, put_in_place_of, spoiled, spoiled_bytes, within

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "train_two_ways.py"
VALID = yaml.safe_load(as_yaml(Config()))
LEVELS = "\n".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}' if n else 'x'] * 10)}]" for n in range(10))
BOMB = f"{LEVELS}\ntask: *a9\n"
"""Ten lines that stand for ten thousand million texts."""


@exit_codes("parse")
def parsing(arguments):
    parse_config(arguments, None)
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with within(tmp_path_factory.mktemp("configs")) as folder:
        yield folder


def given_to_it(folder, content):
    path = folder / "hostile.yaml"
    path.write_bytes(content)
    told = one_sentence(lambda: parsing(["--config", str(path)]))
    assert "evil" not in sys.modules
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"evil.py", "hostile.yaml"}
    return told


def dumped(content):
    """As YAML, if it can be written as such."""
    try:
        return yaml.dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
    except ValueError:  # an integer with more digits than Python prints
        return b""


@cases(25)
@given(data=st.data())
def test_a_field_may_hold_anything(folder, data):
    given_to_it(folder, dumped(data.draw(spoiled(VALID))))


@cases(12)
@given(data=st.data())
def test_a_file_may_be_spoiled_anywhere(folder, data):
    given_to_it(folder, data.draw(spoiled_bytes(as_yaml(Config()).encode())))


@cases(12)
@given(content=VALUES, text=TEXTS)
def test_a_file_may_hold_anything(folder, content, text):
    given_to_it(folder, dumped(content))
    given_to_it(folder, text.encode("utf-8", "surrogatepass"))


def test_what_was_not_spoiled_is_used(folder):
    assert given_to_it(folder, dumped(VALID)).code == 0


def test_what_a_terminal_would_obey_is_told_escaped(folder):
    told = given_to_it(folder, dumped({"\x1b[31m": {}}))
    assert (told.code, "\\x1b[31m" in told.err) == (2, True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_place_of_the_file_is_refused(folder, kind, tmp_path):
    put_in_place_of(tmp_path / "config.yaml", kind)
    assert one_sentence(lambda: parsing(["--config", str(tmp_path / "config.yaml")])).code == 2


def test_aliases_are_refused_before_they_grow(folder):
    told = given_to_it(folder, BOMB.encode())
    assert (told.code, "it has an alias" in told.err) == (2, True)
    with pytest.raises(AssertionError, match=r"it hangs|MemoryError"):
        one_sentence(lambda: len(str(yaml.safe_load(BOMB))), seconds=2, gigabytes=1)


CLASSES = [
    {"optimizer": {"class_path": "evil.Evil"}},
    {"optimizer": {"class_path": "evil.Evil", "init_args": {"lr": 1}}},
    {"optimizer": "evil.Evil"},
]


@pytest.mark.parametrize("content", [*CLASSES, {"optimizer": "evil.py"}, {"task": "!!python/name:evil.Evil"}])
def test_no_class_is_imported_for_a_configuration(folder, content):
    assert given_to_it(folder, dumped(content)).code == 2
    assert one_sentence(lambda: parsing(["--optimizer", "evil.Evil"])).code == 2
    assert not (folder / "marker").exists()


@pytest.mark.parametrize("content", CLASSES)
def test_a_parser_that_reads_the_file_itself_would_import_it(tmp_path, content):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config, skip={"quiet", "output"})
    with within(tmp_path), pytest.raises(jsonargparse.ArgumentError):
        parser.parse_object(content)
    if jsonargparse.__version__ < "4.53" and not (tmp_path / "marker").exists():
        pytest.skip("this jsonargparse imports nothing")
    assert (tmp_path / "marker").exists()


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("train_two_ways", EXPERIMENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


EXTREME = st.sampled_from([LARGEST_NUMBER, 1e-30, 1e-320, 5e-324, 1.0, 1e10])
NUMERIC = ("optimizer.lr", "optimizer.weight_decay", "clip.threshold", "scaler.init_scale")


@cases(1, share=0.01)
@example(lr=LARGEST_NUMBER, decay=0.0, threshold=1.0, scale=1.0, backoff=0.5, optimizer="adamw", by="value", growth=1)
@example(
    lr=1.0,
    decay=LARGEST_NUMBER,
    threshold=LARGEST_NUMBER,
    scale=LARGEST_NUMBER,
    backoff=1e-300,
    optimizer="sgd",
    by="value",
    growth=1,
)
@given(
    lr=EXTREME, decay=EXTREME, threshold=EXTREME, scale=EXTREME, backoff=st.sampled_from([1e-300, 0.5]),
    optimizer=st.sampled_from(["adamw", "sgd"]), by=st.sampled_from(["norm", "value"]), growth=st.sampled_from([1, 10**6]),
)  # fmt: skip
def test_every_number_that_is_allowed_can_be_trained_with(experiment, tmp_path_factory, lr, decay, threshold, scale, backoff, optimizer, by, growth):  # fmt: skip
    folder = tmp_path_factory.mktemp("trained")
    fields = {
        "precision": "fp16", "steps": 2, "microbatch_size": 4, "quiet": True, "output": str(folder / "out"), "name": "n",
        "optimizer": {"name": optimizer, "lr": lr, "weight_decay": decay, "warmup_steps": 1},
        "clip": {"by": by, "threshold": threshold},
        "scaler": {"init_scale": scale, "backoff_factor": backoff, "growth_interval": growth},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(fields))
    told = one_sentence(lambda: experiment(["--config", str(folder / "config.yaml")]))
    assert told.code == 0
    assert told.out == "1 of 1 trainings are identical both ways.\n"
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "out"}, "nothing beside its output"
    assert {path.name for path in (folder / "out").iterdir()} == {"n"}


def test_a_number_in_the_output_that_leads_elsewhere_is_not_followed(experiment, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "1").symlink_to(elsewhere)
    (tmp_path / "n" / "2").symlink_to(tmp_path / "nowhere")
    arguments = ["--steps", "1", "--microbatch_size", "4", "--quiet", "--output", str(tmp_path), "--name", "n"]
    assert one_sentence(lambda: experiment(arguments)).code == 0
    assert list(elsewhere.iterdir()) == []
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "n" / "3" / "config.yaml").exists()
