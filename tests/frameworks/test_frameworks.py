"""Frameworks × scenarios, asserted cell by cell; negative controls; and what is said of the causes, checked."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gradparity.frameworks import watch
from gradparity.frameworks.known import KNOWN, cause
from gradparity.frameworks.scenario import MICROBATCH, SCENARIOS, new_job
from gradparity.frameworks.table import cell, differences, markdown
from gradparity.frameworks.watch import (
    FRAMEWORKS,
    NOT_INSTALLED,
    NullTestError,
    checked_reference,
    outcome,
    outcome_of,
    quiet,
    recorded,
)
from gradparity.parity.random_stream import RandomStream
from gradparity.parity.state import Part
from gradparity.tasks import Examples, count
from gradparity.trace.diff import first_other_events
from gradparity.trace.record import Event

SCRIPT = Path(__file__).parents[2] / "experiments" / "frameworks.py"

MEANS = ("At step 0, microbatch 0, phase forward", "loss")
PARTIAL = ("At step 3, microbatch 0, phase forward", "loss")
SHIFTED = ("At step 0, phase clipped", "gradients")
NO_FP16 = ("At step 0, microbatch 0, phase forward", "loss")
SCHEDULE = ("At step 4, phase clipped", "optimizer")
RESUMED = ("At step 2, microbatch 0, phase forward", "loss")

EXPECTED = {
    "Lightning, automatic": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "fp16 and an overflow": SCHEDULE,
        "resume mid-epoch": RESUMED,
        "resume with dropout off": RESUMED,
    },
    "Lightning, manual": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "fp16 and clipping": ("At step 0, phase unscaled", "gradients"),
        "fp16 and an overflow": SCHEDULE,
        "resume mid-epoch": RESUMED,
        "resume with dropout off": RESUMED,
    },
    "Fabric": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "fp16 and an overflow": SCHEDULE,
        "resume mid-epoch": RESUMED,
    },
    "Fabric, word for word": {
        **dict.fromkeys([name for name in SCENARIOS if name != "K = 1"], SHIFTED),
        "uneven token counts": MEANS,
        "fp16 and clipping": ("At step 0, phase unscaled", "gradients"),
        "fp16 and an overflow": ("At step 0, phase unscaled", "gradients"),
    },
    "Accelerate": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "fp16 and clipping": NO_FP16,
        "fp16 and an overflow": NO_FP16,
    },
    "Accelerate, token count": {
        "uneven token counts": MEANS,
        "fp16 and clipping": NO_FP16,
        "fp16 and an overflow": NO_FP16,
    },
    "transformers": {"fp16 and clipping": NO_FP16, "fp16 and an overflow": NO_FP16},
    "Ignite": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "bf16": NO_FP16,
        "fp16 and an overflow": NO_FP16,
        "schedule per step": ("After the last step", "optimizer"),
        "resume mid-epoch": RESUMED,
        "resume with dropout off": RESUMED,
    },
}

RATIOS = {
    ("Lightning, automatic", "partial last window"): 2 / 3,
    ("Fabric", "partial last window"): 2 / 3,
    ("Accelerate", "partial last window"): 2 / 3,
    ("Accelerate", "fp16 and clipping"): 1 / 1024,
    ("transformers", "fp16 and an overflow"): 1 / 16,
}

STEPS = {  # reference, framework
    ("Lightning, automatic", "partial last window"): [4, 4],
    ("Lightning, manual", "partial last window"): [4, 3],
    ("Fabric", "partial last window"): [4, 3],
    ("Accelerate", "partial last window"): [4, 4],
    ("Ignite", "partial last window"): [4, 3],
    ("Lightning, automatic", "fp16 and an overflow"): [6, 6],
    ("Accelerate", "fp16 and an overflow"): [6, 7],
}


def loop_of(name):
    return FRAMEWORKS[name].load()


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_every_cell_of_the_table_is_as_it_is_known_to_be(tmp_path):
    done = run("--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    cells = json.loads((tmp_path / "frameworks" / "1" / "frameworks.json").read_text())
    found = {(c["framework"], c["scenario"]): c for c in cells}
    assert found.keys() == {(framework, scenario) for framework in FRAMEWORKS for scenario in SCENARIOS}
    for (framework, scenario), c in found.items():
        expected = EXPECTED[framework].get(scenario)
        assert c["identical"] == (expected is None), c
        assert expected is None or (c["where"], c["part"]) == expected, c
    for place, ratio in RATIOS.items():
        assert found[place]["figures"]["norm_ratio"] == pytest.approx(ratio, rel=1e-4)
    for place, steps in STEPS.items():
        assert found[place]["steps"] == steps
    assert found["Accelerate, token count", "uneven token counts"]["figures"]["max_ulp"] == 1
    assert "47 of 88 cells are identical to the reference, bit for bit" in done.stdout
    assert list((tmp_path / "frameworks" / "1").glob("events.*"))


def test_every_difference_has_a_cause_and_no_identical_cell_has_one():
    for framework in FRAMEWORKS:
        for scenario in SCENARIOS:
            assert bool(cause(framework, scenario)) == (scenario in EXPECTED[framework]), (framework, scenario)
    places = [(f, s) for known in KNOWN for f in known.frameworks for s in known.scenarios]
    assert len(places) == len(set(places)) == 41


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_another_threshold_for_clipping_is_seen_in_every_framework(name):
    loop = loop_of(name)

    def wrong(job):
        loop(replace(job, scenario=replace(job.scenario, max_norm=0.06)))

    scenario = replace(SCENARIOS["clipping"], k=1, microbatches=2)
    assert outcome_of(loop, scenario).identical
    found, mismatch = outcome_of(wrong, scenario).verdict.first
    assert (found.step, found.phase.name, mismatch.part) == (0, "CLIPPED", Part.GRADIENTS)
    assert mismatch.figures.norm_ratio == pytest.approx(1.2, rel=1e-3)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_dropped_microbatch_is_seen_in_every_framework(name):
    loop = loop_of(name)

    def wrong(job):
        loop(replace(job, examples=Examples(*(torch.cat((part[:4], part[8:])) for part in job.examples))))

    scenario = replace(SCENARIOS["K = 1"], microbatches=3)
    assert outcome_of(loop, scenario).identical
    found, mismatch = outcome_of(wrong, scenario).verdict.first
    assert (found.step, found.microbatch, found.phase.name, mismatch.part) == (1, 0, "FORWARD", Part.LOSS)


def test_the_scenarios_bite():
    traces = {name: checked_reference(scenario) for name, scenario in SCENARIOS.items()}

    def gradients(name, event, step):
        return [r.parts[Part.GRADIENTS] for r in traces[name].records if (r.event, r.step) == (event, step)][-1]

    for name in ("clipping", "fp16 and clipping"):
        before, after = (
            (gradients(name, event, 0)["norm.weight"].norm for event in (Event.UNSCALED, Event.READY))
            if ("fp16" in name)
            else (gradients(name, event, 0)["norm.weight"].norm for event in (Event.ACCUMULATED, Event.READY))
        )
        assert after < 0.5 * before
    skipped = [r.step for r in traces["fp16 and an overflow"].records if r.event == Event.SKIP]
    assert skipped == [3]
    assert not any(r.event == Event.SKIP for name in SCENARIOS if "overflow" not in name for r in traces[name].records)
    for name, scenario in SCENARIOS.items():
        ready = [r for r in traces[name].records if r.event == Event.READY]
        rates = {r.parts[Part.OPTIMIZER]["group 0.lr"] for r in ready}
        assert len(ready) == -(-scenario.microbatches // scenario.k)
        assert (len(rates) > 1) == scenario.schedule
    assert traces["partial last window"].records[-2].step == 3


def test_only_one_scenario_has_uneven_microbatches(tmp_path):
    for scenario in SCENARIOS.values():
        inputs, targets = new_job(scenario, tmp_path).examples
        pieces = zip(inputs.split(MICROBATCH), targets.split(MICROBATCH), strict=True)
        counts = {count(Examples(*piece)) for piece in pieces}
        assert (len(counts) > 1) if scenario.uneven else counts == {256}


def test_without_a_null_test_there_is_no_verdict(monkeypatch):
    reference, calls = watch.reference_loop, []

    def restless(job):
        calls.append(job)
        job.optimizer.param_groups[0]["lr"] *= len(calls)
        reference(job)

    monkeypatch.setattr(watch, "reference_loop", restless)
    with pytest.raises(NullTestError, match="differs from itself: At step 0"):
        checked_reference.__wrapped__(replace(SCENARIOS["K = 1"], microbatches=1))


def test_a_loop_that_stops_late_is_no_half():
    def late(job):
        watch.reference_loop(job)

    with pytest.raises(AssertionError, match="asked to stop after 2 steps, the loop made 4"):
        outcome_of(late, SCENARIOS["resume mid-epoch"])


def test_what_is_not_installed_and_what_refuses_is_told(monkeypatch):
    def refuses(job):
        raise ValueError("not on\n a CPU")

    refused = outcome_of(refuses, replace(SCENARIOS["K = 1"], microbatches=1))
    assert refused.refusal == "ValueError: not on a CPU"
    monkeypatch.setattr(watch, "find_spec", lambda package: None)
    missing = outcome(FRAMEWORKS["Ignite"], SCENARIOS["K = 1"])
    assert missing == NOT_INSTALLED
    outcomes = {"K = 1": {"Ignite": missing, "Fabric": refused}}
    assert (cell(missing), cell(refused)) == ("not installed", "refuses")
    assert list(differences(outcomes)) == [
        "not installed: pip install 'gradparity[frameworks]'",
        "ValueError: not on a CPU",
    ]
    assert "| K = 1 | not installed | refuses |" in markdown(outcomes)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_does_the_same_in_the_same_order_but_where_its_documentation_miscounts(name, tmp_path):
    reference = checked_reference(SCENARIOS["clipping"])
    other = first_other_events(reference, recorded(loop_of(name), SCENARIOS["clipping"], tmp_path))
    assert (other is None) == (name != "Fabric, word for word"), other


def watched(name, scenario, tmp_path, hook, module=lambda model: model, **job):
    fresh = new_job(scenario, tmp_path, **job)
    module(fresh.model).register_forward_hook(hook)
    with RandomStream(0).active(), quiet():
        loop_of(name)(fresh)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Lightning, automatic", 0),
        ("Lightning, manual", 0),
        ("Ignite", 0),
        ("Fabric", 6),
        ("Accelerate", 6),
        ("transformers", 6),
    ],
)
def test_after_a_resume_some_begin_the_epoch_again(name, first, tmp_path):
    scenario, seen = SCENARIOS["resume with dropout off"], []
    watched(name, scenario, tmp_path, lambda *_: None, stop_after=2)
    watched(name, scenario, tmp_path, lambda _, args, __: seen.append(args[0]), resume=True)
    everything = new_job(scenario, tmp_path).examples.inputs.split(MICROBATCH)
    assert torch.equal(seen[0], everything[first])
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("Lightning, automatic", torch.float16),
        ("Fabric", torch.float16),
        ("Accelerate", torch.float32),
        ("transformers", torch.float32),
        ("Ignite", torch.float32),
    ],
)
def test_some_compute_in_fp32_when_asked_for_fp16_on_a_cpu(name, dtype, tmp_path):
    seen = set()
    scenario = replace(SCENARIOS["fp16 and an overflow"], microbatches=3)
    watched(name, scenario, tmp_path, lambda _, __, y: seen.add(y.dtype), lambda model: model.blocks[0].qkv)
    assert seen == {dtype}


@pytest.mark.parametrize("arguments", [["--only", "keras"], ["--scenario", "fp8"], ["--output", __file__]])
def test_bad_input_is_told_in_one_sentence(arguments, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    shown = capsys.readouterr()
    assert exit.value.code == 2
    assert shown.out == ""
    assert arguments[0] in shown.err.splitlines()[-1]


def test_a_few_frameworks_and_scenarios_can_be_chosen(tmp_path, capsys):
    arguments = ["--only", "fabric", "--scenario", "k = 3", "--output", str(tmp_path)]
    assert runpy.run_path(str(SCRIPT))["main"](arguments) == 0
    out = capsys.readouterr().out
    assert "1. Fabric, word for word: K = 3" in out
    assert "1 of 2 cells are identical to the reference" in out
    assert f"--logdir {tmp_path}/frameworks/1" in out
