"""DDP and the manual route on every rank, bit for bit; wrong loops caught at their rank, step, microbatch and phase.

All trials with one number of ranks share one launch: processes cost more than these trainings.
"""

from itertools import product

import pytest

from gradparity.errors import UserError
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.processes.launch import launch
from gradparity.studies.distributed.trial import Trial, run_trials
from gradparity.studies.train_two_ways.config import ClipConfig, Config, OptimizerConfig
from gradparity.training import Phase

STEPS = 3
EXAMPLES = 30
"""Of 8 microbatches: for 2 ranks and K = 3, the third window of an epoch has two, the last of them with two samples."""


def trial(task="digits_mlp", precision="fp32", candidate="manual", **fields):
    config = Config(
        task=task, precision=precision, steps=STEPS, accumulation_steps=3, microbatch_size=4,
        clip=ClipConfig(by="norm", threshold=0.05), optimizer=OptimizerConfig(warmup_steps=0),
    )  # fmt: skip
    return Trial(config=config, candidate=candidate, **fields)


UNEVEN = {
    (task, precision): trial(task, precision, examples=EXAMPLES)
    for task, precision in [
        ("digits_mlp", "fp64"),
        ("digits_mlp", "bf16"),
        ("digits_cnn", "fp32"),
        ("digits_cnn", "fp16"),
        ("transformer", "fp32"),
        ("transformer", "fp16"),
        ("branches", "fp32"),
        ("additive", "fp32"),
        ("channels_last", "fp32"),
    ]
}
OTHERS = {
    "null": trial("digits_cnn", candidate="ddp", examples=EXAMPLES),
    "overflow": trial(precision="fp16", overflow=(1, 1)),
    "overflow, own scales": trial(precision="fp16", overflow=(1, 1), fault="scale-of-each-rank"),
    "own means, even counts": trial("digits_mlp", fault="mean-of-rank-means"),
}
WRONG = {
    (name, candidate): trial("transformer" if name == "mean-of-rank-means" else "digits_cnn", candidate=candidate, fault=name)
    for name, candidate in [
        *product(["unsynchronised-gradients", "exchanges-every-microbatch"], ["ddp", "manual"]),
        *product(["mean-of-rank-means", "averaged-twice"], ["ddp", "manual"]),
        *product(["scale-of-each-rank", "local-clip", "own-buffers", "summed-over-ranks"], ["manual"]),
    ]
}  # fmt: skip
THREE = {
    (fault or candidate, averaging): trial("digits_cnn", candidate=candidate, fault=fault, averaging=averaging, examples=50)
    for candidate, fault in (("ddp", None), ("manual", None), ("ddp", "unsynchronised-gradients"))
    for averaging in ("all_reduced", "in_rank_order")
}  # fmt: skip


QUICK = {
    *("null", "overflow", "overflow, own scales"),
    *(("digits_cnn", "fp16"), ("digits_cnn", "fp32"), ("transformer", "fp32")),
    *(("unsynchronised-gradients", "ddp"), ("unsynchronised-gradients", "manual")),
    *(("mean-of-rank-means", "manual"), ("own-buffers", "manual")),
}
"""One of each kind; what needs others is long."""


def quick_or_long(names):
    return [pytest.param(*name, marks=() if name in QUICK else pytest.mark.long) for name in names]


def outcomes(ranks, trials):
    """What each rank found in each trial, by the trial's name."""
    found = launch(run_trials, ranks, list(trials.values()), seconds=300, patience=60)
    return dict(zip(trials, zip(*found, strict=True), strict=True))


@pytest.fixture(scope="module")
def two(request):
    """What two ranks found in all trials; only in the quick ones, if no test has been chosen that needs others."""
    here = [item for item in request.session.items if item.path == request.node.path]
    everything = any(item.get_closest_marker("long") for item in here)
    trials = {**UNEVEN, **OTHERS, **WRONG}
    return outcomes(2, {name: made for name, made in trials.items() if everything or name in QUICK})


@pytest.fixture(scope="module")
def three():
    return outcomes(3, THREE)


@pytest.mark.parametrize(("task", "precision"), quick_or_long(UNEVEN))
def test_by_hand_is_ddp_bit_for_bit_on_every_rank_with_uneven_windows(two, task, precision):
    for rank, found in enumerate(two[task, precision]):
        assert found.rank == rank
        assert found.first is None, found.explanation
        assert found.parity
        assert found.steps == STEPS
        assert found.numbers > 10_000
        assert found.routes.differing == 0
        assert found.routes.elements > 2 * 1_000, "of both ranks"
    moved = [found.across[-1].gradients.elements for found in two[task, precision]]
    assert moved[0] == moved[1] > 0, "torchmetrics has told every rank of all"


def test_ddp_against_itself_is_one_training(two):
    assert all(found.parity for found in two["null"])


CAUGHT = {
    "unsynchronised-gradients": (Place(0, 2, Phase.ACCUMULATED), Part.GRADIENTS),
    "exchanges-every-microbatch": (Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
    "mean-of-rank-means": (Place(0, 0, Phase.FORWARD), Part.LOSS),
    "averaged-twice": (Place(0, 0, Phase.FORWARD), Part.LOSS),
    "scale-of-each-rank": (Place(0, 2, Phase.ACCUMULATED), Part.GRADIENTS),
    "local-clip": (Place(0, 2, Phase.ACCUMULATED), Part.GRADIENTS),
    "summed-over-ranks": (Place(0, 2, Phase.ACCUMULATED), Part.GRADIENTS),
    "own-buffers": (Place(1, 0, Phase.FORWARD), Part.BUFFERS),
}
"""The place and part of the first difference."""


@pytest.mark.parametrize(("name", "candidate"), quick_or_long(WRONG))
def test_a_wrong_loop_is_caught_at_its_first_difference(two, name, candidate):
    first_rank, second_rank = found = two[name, candidate]
    firsts = [f.first for f in found]
    caught = [f and (f.place, f.part) for f in firsts]
    if name == "own-buffers":
        assert caught == [None, CAUGHT[name]], "rank 0 has the buffers that all should have"
    else:
        assert caught == [CAUGHT[name]] * 2
    assert not second_rank.parity
    place, _ = CAUGHT[name]
    assert f"At step {place.step}, microbatch {place.microbatch}" in second_rank.explanation
    parted = [step.differing for step in first_rank.across]
    assert parted == ([(1,)] * STEPS if name == "unsynchronised-gradients" else [()] * STEPS)
    assert first_rank.across == second_rank.across


@pytest.mark.long
def test_averaging_twice_halves_the_loss_on_two_ranks(two):
    assert "is 0.5 times the reference's" in two["averaged-twice", "ddp"][1].explanation


def test_unsynchronised_ranks_drift_apart_step_by_step(two):
    drift = [step.parameters.relative_norm for step in two["unsynchronised-gradients", "ddp"][0].across]
    assert 0 < drift[0] < drift[1] < drift[2]
    assert all(step.gradients.differing > 0 for step in two["unsynchronised-gradients", "ddp"][0].across)


@pytest.mark.long
def test_means_of_ranks_do_no_harm_where_all_ranks_count_as_much(two):
    assert all(found.parity for found in two["own means, even counts"])


def test_an_overflow_on_one_rank_is_skipped_by_all(two):
    for found in two["overflow"]:
        assert found.parity
        assert [step.scales for step in found.across] == [(65536.0,) * 2, (32768.0,) * 2, (32768.0,) * 2]


def test_a_scale_of_each_rank_makes_the_others_step_with_nan(two):
    steps = two["overflow, own scales"][0].across
    assert steps[1].scales == (65536.0, 32768.0)
    assert steps[1].differing == (1,)
    assert steps[1].parameters.differing > 0
    assert steps[1].parameters.max_absolute < 1, "of the numbers that are finite, none has gone far"


def test_three_ranks_agree_with_each_other_and_by_hand_only_with_a_fixed_order(three):
    for averaging in ("all_reduced", "in_rank_order"):
        assert all(found.parity for found in three["ddp", averaging])
    assert all(found.parity for found in three["manual", "in_rank_order"])
    for found in three["manual", "all_reduced"]:
        assert "As small as rounding" in found.explanation
        assert not any(step.differing for step in found.across), "other bits than DDP's, but the same on all ranks"
    for found in three["unsynchronised-gradients", "all_reduced"]:
        assert [step.differing for step in found.across] == [(1, 2)] * STEPS


@pytest.mark.parametrize(
    "name",
    [
        "unsynchronised-gradients",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("exchanges-every-microbatch", "mean-of-rank-means", "averaged-twice")
        ),
    ],
)
def test_a_fault_is_the_same_by_ddp_and_by_hand(two, name):
    assert [o.routes for o in two[name, "ddp"]] == [o.routes for o in two[name, "manual"]]
    assert [o.across for o in two[name, "ddp"]] == [o.across for o in two[name, "manual"]]


def test_exchanging_every_microbatch_hangs_if_one_rank_has_fewer_and_is_reported():
    uneven = trial("digits_mlp", candidate="ddp", fault="exchanges-every-microbatch", examples=EXAMPLES)
    with pytest.raises(UserError, match=r"ranks? .*(waited|finished)"):
        launch(run_trials, 2, [uneven], patience=2)


def test_the_weights_of_rank_0_are_everyones_before_the_first_step(two):
    """Each rank draws weights of its own, which DDP and ``share`` replace; else the comparison before step 0 differs."""
    assert two["null"][1].across[0].parameters.elements > 0
    assert two["digits_cnn", "fp32"][1].first is None
