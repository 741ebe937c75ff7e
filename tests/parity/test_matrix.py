"""The manual route against ``.backward()``, in every combination of what a training is made of: 0 ULP in all."""

from collections import Counter
from itertools import combinations, product

import pytest
import torch

from covering import quick_if_new
from gradparity.parity.state import COMPARED, Part
from gradparity.parity.step_metrics import StepMetricsReader
from gradparity.parity.verdict import Verdict
from gradparity.studies.train_two_ways.config import ClipConfig, OptimizerConfig
from gradparity.training import Phase
from small import STEPS, comparisons, small_config, small_lanes

pytestmark = pytest.mark.processor

TASKS = ("digits_mlp", "digits_cnn", "transformer")
PRECISIONS = ("fp64", "fp32", "bf16", "fp16")
ACCUMULATION_STEPS = (1, 3, 4)
CLIPS = {
    "none": ClipConfig(by="none"),
    "norm": ClipConfig(by="norm", threshold=0.05),
    "value": ClipConfig(by="value", threshold=1e-3),
}
OPTIMIZERS = {
    "adamw": OptimizerConfig(name="adamw", warmup_steps=2),
    "sgd": OptimizerConfig(name="sgd", warmup_steps=2),
}
CELLS = list(product(TASKS, PRECISIONS, ACCUMULATION_STEPS, CLIPS, OPTIMIZERS))


def test_the_matrix_has_all_its_cells():
    assert len(set(CELLS)) == 3 * 4 * 3 * 3 * 2


def pairs(cell):
    """What of a cell meets: any two values, with their axes."""
    return combinations(enumerate(cell), 2)


@pytest.mark.parametrize("cell", quick_if_new(CELLS, pairs), ids=lambda cell: "-".join(map(str, cell)))
def test_both_routes_are_one_training(cell):
    task, precision, k, clip, optimizer = cell
    config = small_config(
        task=task, precision=precision, accumulation_steps=k, clip=CLIPS[clip], optimizer=OPTIMIZERS[optimizer]
    )
    assert_parity(config)


@pytest.mark.cuda
@pytest.mark.parametrize(("task", "precision", "optimizer"), list(product(TASKS, PRECISIONS, OPTIMIZERS)))
def test_both_routes_are_one_training_on_a_gpu(task, precision, optimizer, on_a_gpu):
    config = small_config(
        task=task, precision=precision, clip=CLIPS["norm"], optimizer=OPTIMIZERS[optimizer], device="cuda"
    )
    assert_parity(config)


@pytest.mark.cuda
@pytest.mark.parametrize("task", TASKS)
def test_the_reference_is_one_training_with_itself_on_a_gpu(task, on_a_gpu):
    assert_parity(small_config(task=task, precision="fp16", candidate="backward", clip=CLIPS["norm"], device="cuda"))


@pytest.mark.parametrize("task", TASKS)
def test_the_reference_is_one_training_with_itself(task):
    assert_parity(small_config(task=task, precision="fp16", candidate="backward", clip=CLIPS["norm"]))


def assert_parity(config):
    """Parity, and that what it is about did happen: learning, clipping, an overflow, partial windows."""
    lanes = small_lanes(config)
    start = [p.detach().clone() for p in lanes[0].run.parameters]
    verdict, reader, readings, moments = Verdict(), StepMetricsReader(lanes[0].run), [], Counter()
    for found in comparisons(config, lanes):
        verdict.add(found)
        moments[found.place.phase] += 1
        readings.append(reader.take(found.reference))
    readings = [r for r in readings if r]

    assert verdict.parity, verdict.explanation
    assert verdict.steps == STEPS
    assert moments[Phase.FORWARD] == moments[Phase.ACCUMULATED] == {1: 7, 3: 20, 4: 26}[config.accumulation_steps]
    assert [r.skipped for r in readings] == [config.precision == "fp16" and step == 3 for step in range(STEPS)]
    assert len({r.lr for r in readings}) == STEPS - (config.precision == "fp16")
    assert all((r.clipped_norm < r.norm) == (config.clip.by != "none") for r in readings if not r.skipped)
    assert all(not torch.equal(p, before) for p, before in zip(lanes[0].run.parameters, start, strict=True))
    for phase, parts in COMPARED.items():
        for part in parts:
            has_none = (
                (part == Part.BUFFERS and config.task != "digits_cnn")
                or (part == Part.SCALER and config.precision != "fp16")
                or part == Part.EXTRA  # an average or a second optimizer, which tests/matrix has
                or part == Part.MODES  # which names only what is not as usual
            )
            assert (verdict.cells[phase, part].compared == 0) == has_none, (phase, part)
