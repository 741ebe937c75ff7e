"""Negative controls for every framework's loop; that the scenarios bite; and the causes of differences, looked into."""

from dataclasses import replace

import pytest
import torch

from gradparity.parity.random_stream import RandomStream
from gradparity.parity.state import Part
from gradparity.studies.frameworks.reference import reference_loop
from gradparity.studies.frameworks.scenario import MICROBATCH, SCENARIOS, new_job
from gradparity.studies.frameworks.watch import (
    FRAMEWORKS,
    NullTestError,
    checked_reference,
    loop_outcome,
    quiet,
    record_loop,
)
from gradparity.studies.tasks import Examples, count
from gradparity.trace.events import Event
from gradparity.trace.events_compared import first_other_events


def loop_of(name):
    return FRAMEWORKS[name].load()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_different_clipping_threshold_is_seen_in_every_framework(name):
    loop = loop_of(name)

    def wrong(job):
        loop(replace(job, scenario=replace(job.scenario, max_norm=0.06)))

    scenario = replace(SCENARIOS["clipping"], k=1, microbatches=2)
    assert loop_outcome(loop, scenario).identical
    found, mismatch = loop_outcome(wrong, scenario).verdict.first
    assert (found.place.step, found.place.phase.name, mismatch.part) == (0, "CLIPPED", Part.GRADIENTS)
    assert mismatch.figures.norm_ratio == pytest.approx(1.2, rel=1e-3)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_dropped_microbatch_is_seen_in_every_framework(name):
    loop = loop_of(name)

    def wrong(job):
        loop(replace(job, examples=Examples(*(torch.cat((part[:4], part[8:])) for part in job.examples))))

    scenario = replace(SCENARIOS["K = 1"], microbatches=3)
    assert loop_outcome(loop, scenario).identical
    found, mismatch = loop_outcome(wrong, scenario).verdict.first
    assert (found.place.step, found.place.microbatch, found.place.phase.name, mismatch.part) == (
        1,
        0,
        "FORWARD",
        Part.LOSS,
    )


def test_the_scenarios_bite():
    traces = {name: checked_reference(scenario) for name, scenario in SCENARIOS.items()}

    def gradients(name, event, step):
        return [r.parts[Part.GRADIENTS] for r in traces[name].records if (r.event, r.step) == (event, step)][-1]

    for name, unclipped in (("clipping", Event.ACCUMULATED), ("fp16 and clipping", Event.UNSCALED)):
        before, after = (gradients(name, event, 0)["norm.weight"].norm for event in (unclipped, Event.READY))
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


def windows_of(scenario, tmp_path, microbatches):
    """How many tokens there are in each window."""
    _, targets = new_job(scenario, tmp_path).examples
    counts = [count(Examples(piece, piece)) for piece in targets.split(MICROBATCH)]
    return [sum(counts[first : first + microbatches]) for first in range(0, len(counts), microbatches)]


def test_where_a_recipe_multiplies_by_k_and_divides_again_no_processor_can_round_the_first_gradient_alike(tmp_path):
    """The slope of a loss is divided and multiplied one operation at a time, which IEEE 754 defines."""
    one, k = torch.ones(()), 3
    for ranks in (1, 2):
        n = windows_of(SCENARIOS["uneven token counts"], tmp_path, k * ranks)[0]
        assert one / (n / ranks) != one / k / n * (k * ranks)
        even = windows_of(SCENARIOS["K = 3"], tmp_path, k * ranks)[0]
        assert one / (even / ranks) == one / k / even * (k * ranks)


def test_where_counts_are_even_every_processor_rounds_the_loss_alike_too():
    """Three times a number is exact enough to be divided by three again if its fraction is below 4/3."""
    for name in ("K = 1", "K = 3", "clipping", "bf16", "schedule per step"):
        scenario = SCENARIOS[name]
        losses = [r.parts[Part.LOSS] for r in checked_reference(scenario).records if r.event == Event.FORWARD]
        assert all(4.01 < scenario.k * loss.norm < 5.3 for each in losses for loss in each.values()), name
    x = torch.arange(2**23, 2**25 // 3, dtype=torch.float32)
    assert torch.equal(x * 3 / 3, x)
    assert not torch.equal((x + 2**22) * 3 / 3, x + 2**22)


def test_without_a_null_test_there_is_no_verdict():
    calls = []

    def restless(job):
        calls.append(job)
        job.optimizer.param_groups[0]["lr"] *= len(calls)
        reference_loop(job)

    with pytest.raises(NullTestError, match="differs from itself: At step 0"):
        checked_reference(replace(SCENARIOS["K = 1"], microbatches=1), restless)


def test_a_loop_that_stops_late_is_no_half():
    def late(job):
        reference_loop(job)

    with pytest.raises(AssertionError, match="asked to stop after 2 steps, the loop made 4"):
        loop_outcome(late, SCENARIOS["resume mid-epoch"])


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_does_the_same_in_the_same_order_but_where_its_documentation_miscounts(name, tmp_path):
    reference = checked_reference(SCENARIOS["clipping"])
    other = first_other_events(reference, record_loop(loop_of(name), SCENARIOS["clipping"], tmp_path))
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
