"""DDP and the manual route over NCCL, a GPU for each rank."""

from dataclasses import replace

import pytest
import torch

from gradparity.processes.launch import launch
from gradparity.studies.distributed.trial import Trial, run_trials
from gradparity.studies.train_two_ways.config import ClipConfig, Config, OptimizerConfig
from gradparity.training import Phase

pytestmark = pytest.mark.cuda

CONFIG = Config(
    steps=3, accumulation_steps=3, microbatch_size=4, clip=ClipConfig(by="norm", threshold=0.05),
    optimizer=OptimizerConfig(warmup_steps=0), device="cuda",
)  # fmt: skip


def trial(task, precision, candidate="manual", **fields):
    return Trial(config=replace(CONFIG, task=task, precision=precision), candidate=candidate, **fields)


@pytest.mark.parametrize("ranks", [1, 2])
def test_by_hand_is_ddp_over_nccl(ranks):
    if torch.cuda.device_count() < ranks:
        pytest.skip(f"{ranks} ranks need as many GPUs, here are {torch.cuda.device_count()}")
    trials = [trial(task, p) for task in ("digits_mlp", "digits_cnn", "transformer") for p in ("fp32", "bf16", "fp16")]
    for found in launch(run_trials, ranks, trials, seconds=500, patience=60, device="cuda"):
        assert len(found) == len(trials)
        for outcome in found:
            assert outcome.parity, outcome.explanation
            assert outcome.steps == 3


def test_autograd_grad_through_ddp_leaves_ranks_alone():
    if torch.cuda.device_count() < 2:
        pytest.skip("two ranks need two GPUs")
    for (outcome,) in launch(
        run_trials, 2, [trial("digits_mlp", "fp32", "ddp", fault="unsynchronised-gradients")], device="cuda"
    ):
        assert (outcome.first.place.step, outcome.first.place.phase) == (0, Phase.ACCUMULATED)
        assert outcome.across[0].differing == (1,)
