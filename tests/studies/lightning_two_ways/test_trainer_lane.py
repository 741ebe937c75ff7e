"""Lightning's Trainer against the reference step: identical, or different where and how it is known to be."""

from dataclasses import replace

import pytest
import torch

from gradparity import training
from gradparity.faults import FAULTS, loop_with
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.lockstep import lockstep
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.parity.verdict import Verdict
from gradparity.studies import tasks
from gradparity.studies.lightning_two_ways.trainer_lane import WAYS, under_lightning
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import ClipConfig, OptimizerConfig, ScalerConfig
from gradparity.training import Phase
from small import small_config, small_lanes, small_task

AUTOMATIC, ROUTED, BY_HAND, BY_HAND_ROUTED = WAYS
CLIP = ClipConfig(by="norm", threshold=0.05)


def verdict_of(way, microbatches=9, loop="backward", overflow=False, **fields):
    scaler = ScalerConfig(init_scale=1024.0)
    config = small_config(**{"task": "digits_cnn", "clip": CLIP, "steps": microbatches, "scaler": scaler, **fields})
    task = small_task(config.task)
    make_lanes = small_lanes if overflow else build.lanes
    reference, candidate = make_lanes(replace(config, candidate="backward"), task)
    if loop in FAULTS:
        reference = replace(reference, step=loop_with(FAULTS[loop])[0])
    examples = tasks.move_examples(
        tasks.TASKS[config.task]().train, "cpu", training.PRECISIONS[config.precision].parameters
    )
    batches = list(tasks.shuffled(examples, 4, torch.Generator().manual_seed(0)))[:microbatches]
    verdict = Verdict()
    windows = training.windows(batches, config.accumulation_steps, tasks.count)
    for found in lockstep(reference, under_lightning(candidate, config, way, batches), windows):
        verdict.add(found)
    assert verdict.steps == -(-microbatches // config.accumulation_steps)
    return verdict


@pytest.mark.parametrize("way", [AUTOMATIC, ROUTED])
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("clip", ["none", "norm"])
def test_automatic_optimization_is_the_reference_step_whichever_route_fills_the_gradients(way, precision, k, clip):
    verdict = verdict_of(way, precision=precision, accumulation_steps=k, clip=replace(CLIP, by=clip))
    assert verdict.parity, verdict.explanation
    assert not verdict.uncompared
    assert verdict.cells[Phase.FORWARD, Part.LOSS].compared == 9


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_so_it_is_for_both_optimizers(optimizer):
    assert verdict_of(ROUTED, optimizer=OptimizerConfig(name=optimizer)).parity


@pytest.mark.parametrize("way", [BY_HAND, BY_HAND_ROUTED])
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
def test_manual_optimization_without_a_scaler_is_the_reference_step(way, precision):
    assert verdict_of(way, precision=precision).parity


@pytest.mark.parametrize("way", [BY_HAND, BY_HAND_ROUTED])
def test_manual_optimization_with_a_scaler_clips_scaled_gradients(way):
    """https://github.com/Lightning-AI/pytorch-lightning/issues/18089: bit for bit the fault of that name."""
    found, mismatch = verdict_of(way, precision="fp16").first
    assert (found.place.step, found.place.phase, mismatch.part) == (0, Phase.UNSCALED, Part.GRADIENTS)
    assert mismatch.figures.cosine == pytest.approx(1)
    assert verdict_of(way, precision="fp16", loop="clip-before-unscale").parity
    assert not verdict_of(AUTOMATIC, precision="fp16", loop="clip-before-unscale").parity


@pytest.mark.parametrize("way", WAYS)
def test_a_partial_last_window_is_divided_by_the_full_number_of_accumulation_steps(way):
    """https://github.com/Lightning-AI/pytorch-lightning/issues/19987"""
    found, mismatch = verdict_of(way, microbatches=8).first
    assert found.place == Place(2, 0, Phase.FORWARD)
    assert mismatch.figures.norm_ratio == pytest.approx(2 / 3)


@pytest.mark.parametrize("way", [AUTOMATIC, ROUTED])
def test_the_schedule_is_advanced_after_a_skipped_step(way):
    """https://github.com/Lightning-AI/pytorch-lightning/issues/18828"""
    verdict = verdict_of(way, microbatches=15, precision="fp16", overflow=True)
    found, mismatch = verdict.first
    assert (found.place.step, found.place.phase, mismatch.name, mismatch.kind) == (
        3,
        Phase.STEPPED,
        "group 0.lr",
        Kind.VALUE,
    )
    assert "group 0.lr is" in verdict.explanation
