import math

import pytest
import torch
from torch import nn

from gradparity.parity.random_stream import RandomStream, seed_of
from gradparity.parity.step_metrics import StepMetricsReader, total_norm
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import ClipConfig
from gradparity.training import Moment, Phase
from small import small_config, small_task


def test_a_step_is_read_from_its_moments():
    config = small_config(task="digits_mlp", precision="fp16", clip=ClipConfig(by="norm", threshold=0.1))
    run = build.lane(config, small_task("digits_mlp"), "backward").run
    window = next(build.windows(config, small_task("digits_mlp")))
    reader, losses, lr = StepMetricsReader(run), [], run.optimizer.param_groups[0]["lr"]
    moments = build.training.train_step(run, window)
    for moment in moments:
        readings = reader.take(moment)
        assert (readings is not None) == (moment.phase == Phase.STEPPED)
        if moment.loss is not None:
            losses.append(moment.loss.item())
    assert readings.loss == pytest.approx(sum(losses))
    assert readings.loss == pytest.approx(math.log(10), rel=0.1), "a model that knows nothing of ten classes"
    assert readings.norm > 0.1
    assert readings.clipped_norm == pytest.approx(0.1, rel=1e-3)
    assert (readings.scale, readings.lr, readings.skipped) == (65536.0, lr, False)


def test_a_step_without_all_its_phases_has_no_readings():
    run = build.lane(small_config(task="digits_mlp"), small_task("digits_mlp"), "backward").run
    reader = StepMetricsReader(run)
    assert reader.take(None) is None
    assert reader.take(Moment(Phase.CLIPPED)) is None
    assert reader.take(Moment(Phase.STEPPED)) is None


def test_the_norm_of_large_gradients_does_not_overflow():
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3e30, 4e30])
    assert total_norm([p, nn.Parameter(torch.zeros(1))]) == pytest.approx(5e30)


def test_every_stream_of_every_seed_has_a_seed_of_its_own():
    assert len({seed_of(seed, name) for seed in range(50) for name in ("weights", "dropout", "1", "11")}) == 200
    assert 0 <= seed_of(3, "x") < 2**63


def test_a_stream_resumes_where_it_stopped_and_does_not_touch_the_global_state():
    outside = torch.get_rng_state()
    stream, whole = RandomStream(5), RandomStream(5)
    parts = []
    for _ in range(3):
        with stream.active():
            parts.append(torch.rand(2))
    with whole.active():
        assert torch.equal(torch.cat(parts), torch.rand(6))
    assert torch.equal(torch.get_rng_state(), outside)
    assert torch.equal(stream.state["cpu"], whole.state["cpu"])
