"""Every fault of several ranks is what it says it is, and those of one rank find their lines in the step on several."""

import re

import pytest

import ends
from gradparity.check.lookup.fault_lookup_on_ranks import NEEDING_UNUSED_PARAMETERS
from gradparity.faults import FAULTS, FaultKind
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.faults.patching import ClashError, patched, source
from gradparity.faults.patching_on_ranks import REFERENCE_ON_RANKS, on_ranks_with
from gradparity.processes.launch import launch
from gradparity.studies.fault_scores.score_on_ranks import scores_on_ranks
from gradparity.training import train_step
from gradparity.training.distributed import ddp_step, manual_step


@pytest.fixture(scope="module")
def scores():
    return {one.fault.name: one for one in scores_on_ranks([*RANK_FAULTS])}


@pytest.mark.slow
@pytest.mark.parametrize("name", RANK_FAULTS)
def test_a_fault_diverges_is_named_and_first_shows_where_it_says(scores, name):
    score = scores[name]
    assert score.diverged
    assert score.named
    assert score.same == (), "no other fault, of several ranks or of one, behaves like it"
    assert score.placed, score.first


def test_each_fault_of_ranks_is_fully_described():
    assert len(RANK_FAULTS) >= 10
    assert not set(RANK_FAULTS) & set(FAULTS)
    for name, fault in RANK_FAULTS.items():
        assert fault.name == name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert re.fullmatch(r"\w.*\.", fault.symptom)
        assert re.fullmatch(r".*[^.]", fault.needs)
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+|torch/.+\.(h|py)", source) for source in fault.sources)
        assert set(fault.changes) <= set(REFERENCE_ON_RANKS)
        assert fault.kind in (FaultKind.BUG, FaultKind.ROUNDING)


def body(step):
    lines = source(step)
    return lines[next(i for i, line in enumerate(lines) if "zero_grad" in line) :]


def test_the_step_by_hand_is_the_step_of_one_rank_and_four_lines_more():
    one, several = body(train_step), body(manual_step)
    more = [line.strip() for line in several if line not in one]
    assert more == [
        "window = replace(window, normalizer=total(window.normalizer) / dist.get_world_size())",
        "share(run.model.buffers())",
        "if index + 1 == len(window.microbatches):",
        "average(run.parameters, averaging)",
    ]
    assert [line for line in several if line in one] == one


def test_a_fault_of_one_rank_and_one_of_several_are_both_in_the_loop():
    two = [FAULTS["clip-before-unscale"], RANK_FAULTS["mean-of-rank-means"]]
    names = on_ranks_with(two)
    assert names["train_step"] is names["manual_step"]
    text = patched(manual_step, FAULTS["clip-before-unscale"].changes[train_step], two[1].changes[manual_step])
    assert text.index("run.clip(") < text.index("run.scaler.unscale_(")
    assert "total(" not in text
    assert "total(" in "".join(source(manual_step))
    assert "total(" not in patched(ddp_step, two[1].changes[ddp_step])


def test_two_faults_of_several_ranks_that_change_the_same_line_clash():
    with pytest.raises(ClashError):
        on_ranks_with(
            [RANK_FAULTS["local-clip"], RANK_FAULTS["unsynchronised-gradients"], RANK_FAULTS["summed-over-ranks"]]
        )


@pytest.mark.parametrize("how", ["ends early", "does another exchange"])
def test_ranks_that_diverge_in_a_run_of_the_reference_stop_together_and_continue_with_the_next(how):
    assert launch(ends.parts, 2, how, patience=20) == [(True, 3.0), (how != "ends early", 3.0)]


def test_ranks_that_do_not_diverge_are_not_stopped():
    assert launch(ends.parts, 2, "never", patience=20) == [(False, 3.0)] * 2


def test_faults_of_unused_parameters_do_not_show_on_several_ranks_and_others_do():
    assert (
        launch(ends.differ_from_the_reference, 2, [*NEEDING_UNUSED_PARAMETERS, "clip-before-unscale"])
        == [["clip-before-unscale"]] * 2
    )
