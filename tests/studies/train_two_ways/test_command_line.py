"""What a user may write, and the one sentence for what cannot be used."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from gradparity.errors import UserError
from gradparity.studies.tasks import TASKS
from gradparity.studies.train_two_ways.command_line import SAVED_CONFIG, as_yaml, parse_config, parse_resume
from gradparity.studies.train_two_ways.config import Config, TaskName

CONFIGS = sorted(Path(__file__).parents[3].joinpath("configs").glob("*.yaml"))


def test_there_are_configs():
    assert {path.stem for path in CONFIGS} == {"demo", "digits_mlp_fp32", "digits_cnn_bf16", "transformer_fp16"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_can_be_read_and_has_the_name_of_its_file(path):
    assert parse_config(["--config", str(path)], None).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_that_was_written_down_reads_back_as_itself(path, tmp_path):
    config = parse_config(["--config", str(path)], None)
    (tmp_path / "again.yaml").write_text(as_yaml(config))
    assert parse_config(["--config", str(tmp_path / "again.yaml")], None) == config


def test_every_task_can_be_named():
    assert list(get_args(TaskName)) == list(TASKS)


def test_without_arguments_the_defaults_hold():
    assert parse_config([], None) == Config()


def test_the_command_line_overrides_the_file_field_by_field():
    config = parse_config(
        [
            "--config",
            str(CONFIGS[0]),
            "--optimizer.lr",
            "5e-1",
            "--accumulation_steps=5",
            "--precision",
            "bf16",
            "--candidate",
            "naive",
            "--task",
            "transformer",
            "--clip.by=none",
            "--output",
            "elsewhere",
        ],
        None,
    )
    assert (config.optimizer.lr, config.accumulation_steps, config.precision) == (0.5, 5, "bf16")
    assert (config.candidate, config.tasks, config.clip.by, config.output) == (
        "naive",
        ["transformer"],
        "none",
        Path("elsewhere"),
    )
    assert config.scaler.growth_interval == parse_config(["--config", str(CONFIGS[0])], None).scaler.growth_interval


def test_print_config_prints_what_would_be_used(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_config(["--steps", "7", "--print_config"], None)
    assert exit_.value.code == 0
    assert "steps: 7" in capsys.readouterr().out


def test_help_explains_every_field(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_config(["--help"], "What it does.")
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "What it does." in text
    for words in ("Microbatches per optimizer step", "Peak learning rate", "Steps without overflow", "as a null test"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--steps 0", "steps is 0; allowed is 1 to 1000000"),
        ("--steps x", "steps is x; allowed is a whole number"),
        ("--steps 1.5", "steps is 1.5; allowed is a whole number"),
        ("--steps", "argument --steps: expected one argument"),
        ("--accumulation_steps -1", "accumulation_steps is -1; allowed is 1 to 1000000"),
        ("--microbatch_size 99999999999", "microbatch_size is 99999999999; allowed is 1 to 1000000"),
        ("--evaluate_every 0", "evaluate_every is 0; allowed is 1 to 1000000"),
        ("--checkpoint_every 0", "checkpoint_every is 0; allowed is 1 to 1000000"),
        ("--threads 0", "threads is 0; allowed is 1 to 1024"),
        ("--threads 100000", "threads is 100000; allowed is 1 to 1024"),
        ("--seed -1", "seed is -1; allowed is 0 or more"),
        ("--precision fp8", "precision is fp8; allowed is fp64, fp32, bf16, fp16"),
        ("--candidate best", "candidate is best; allowed is manual, frugal, backward, naive, summed-loss, clip-before-unscale"),
        ("--task foo", f"task is foo; allowed is {', '.join(TASKS)}, or a list of them"),
        ("--task []", "task is []; allowed is one task or a list of them"),
        ("--task [digits_mlp,foo]", f"task is ['digits_mlp', 'foo']; allowed is {', '.join(TASKS)}, or a list of them"),
        ("--name ../x", "name is '../x'; allowed is letters, digits, '_', '-' and '.', not starting with '-' or '.'"),
        ("--name ..", "name is '..'; allowed is letters, digits, '_', '-' and '.', not starting with '-' or '.'"),
        ("--optimizer.lr -1", "optimizer.lr is -1.0; allowed is above 0 and up to 1e+30"),
        ("--optimizer.lr .inf", "optimizer.lr is inf; allowed is above 0 and up to 1e+30"),
        ("--optimizer.lr .nan", "optimizer.lr is nan; allowed is above 0 and up to 1e+30"),
        ("--optimizer.lr nan", "optimizer.lr is nan; allowed is a number"),
        ("--optimizer.weight_decay -0.1", "optimizer.weight_decay is -0.1; allowed is 0 to 1e+30"),
        ("--optimizer.warmup_steps -1", "optimizer.warmup_steps is -1; allowed is 0 to 1000000"),
        ("--optimizer.name lion", "optimizer.name is lion; allowed is adamw, sgd"),
        ("--clip.threshold 0", "clip.threshold is 0.0; allowed is above 0 and up to 1e+30"),
        ("--scaler.init_scale 0", "scaler.init_scale is 0.0; allowed is above 0 and up to 1e+30"),
        ("--scaler.growth_interval 0", "scaler.growth_interval is 0; allowed is 1 to 1000000"),
        ("--scaler.backoff_factor 1", "scaler.backoff_factor is 1.0; allowed is between 0 and 1"),
        ("--stepz 3", "stepz is not a field; did you mean steps?"),
        ("--optimiser.lr 3", "optimiser.lr is not a field; did you mean optimizer.lr?"),
        ("--qqq 3", "qqq is not a field; the fields are name, task, candidate,"),
        ("extra", "extra is not a field; the fields are name, task, candidate,"),
        ("--config nowhere.yaml", "nowhere.yaml cannot be read (No such file or directory); name a YAML file with --config"),
        ("--config .", ". cannot be read (it is no regular file); name a YAML file with --config"),
        ("--optimizer adamw", "optimizer takes its fields one by one, as in --optimizer.name"),
        ("--step 3", "step is not a field; did you mean steps?"),
    ],
)  # fmt: skip
def test_a_bad_argument_gets_one_sentence(arguments, sentence):
    with pytest.raises(UserError) as error:
        parse_config(arguments.split(), None)
    assert str(error.value).startswith(sentence) or sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert "typing." not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("optimizer: {lrr: 1}", "optimizer.lrr is not a field; did you mean optimizer.lr?"),
        ("step: 1", "step is not a field; did you mean steps?"),
        ("optimizer: 3", "optimizer is 3; it takes the fields name, lr, weight_decay, warmup_steps"),
        ("steps: 3\nclip:", "clip is ''; it takes the fields by, threshold"),
        ("clip:", "clip is ''; it takes the fields by, threshold"),
        ("optimizer: {name: {lr: 1}}", "optimizer.name holds too many brackets"),
        ("steps: &a 3\naccumulation_steps: *a", "it has an alias, *NAME; write out what that stands for"),
        ("steps: [1]", "steps is ['1']; allowed is a whole number"),
        ("optimizer: {lr: fast}", "optimizer.lr is fast; allowed is a number"),
        ("a: [1,", "is not YAML that can be used"),
        ("- 1", "holds no fields with values"),
        ("just words", "holds no fields with values"),
        ("steps: !!python/object/apply:os.system ['echo run']", "steps is ['echo run']; allowed is a whole number"),
    ],
)
def test_a_bad_file_gets_one_sentence(text, sentence, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        parse_config(["--config", str(path)], None)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_gets_one_sentence(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\x00\xfe\x80")
    with pytest.raises(UserError) as error:
        parse_config(["--config", str(path)], None)
    assert "\n" not in str(error.value)


def test_a_run_is_resumed_with_the_configuration_that_it_saved(tmp_path):
    config = parse_config(["--config", str(CONFIGS[0]), "--steps", "7"], None)
    (tmp_path / SAVED_CONFIG).write_text(as_yaml(config))
    assert parse_resume(["--resume", str(tmp_path)]) == (config, tmp_path)
    assert parse_resume([f"--resume={tmp_path}", "--quiet"]) == (replace(config, quiet=True), tmp_path)
    assert parse_resume(["--steps", "7"]) is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--resume"], "argument --resume: expected one argument"),
        (["--resume", "nowhere"], "nowhere holds no config.yaml; name the folder of a run, such as runs/two_ways/1"),
        (["--resume", "run", "--steps", "7"], "--resume continues run with its own configuration; leave out --steps 7"),
    ],
)
def test_an_impossible_resume_gets_one_sentence(arguments, sentence):
    with pytest.raises(UserError) as error:
        parse_resume(arguments)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)
