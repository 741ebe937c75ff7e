"""`gradparity check --nproc 2`: correct loops pass, faults are named, and bad loops get one sentence, in bounded time."""

import json
import multiprocessing
import re
from pathlib import Path

import pytest

import few_on_ranks
from gradparity.check import rank_check
from gradparity.check.lookup.fault_lookup_on_ranks import (
    NEEDING_UNUSED_PARAMETERS,
    fits_on_ranks,
    known_on_ranks,
    match_with_rounding_on_ranks,
)
from gradparity.check.rank_check import MOST_RANKS
from gradparity.check.rank_worker import observe_both, observe_in_fp32
from gradparity.cli.main import main
from gradparity.faults import FAULTS, FaultKind
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.processes.launch import launch
from patience import with_some_patience


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_loops(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)


@pytest.fixture(params=["few", pytest.param("all", marks=pytest.mark.slow)])
def match_with_rounding(request, monkeypatch):
    """Compare with few faults, or with all; return the function that finds a fault except for rounding."""
    if request.param == "all":
        return match_with_rounding_on_ranks
    monkeypatch.setattr(rank_check, "look_up_on_ranks", few_on_ranks.look_up)
    monkeypatch.setattr(rank_check, "match_with_rounding_on_ranks", few_on_ranks.match_with_rounding)
    return few_on_ranks.match_with_rounding


def checked(loop, capsys, *more):
    code = main(["check", "--nproc", "2", f"loops_on_ranks:{loop}", "--format", "json", *more])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("loop", ["by_ddp", "by_hand"])
def test_correct_loops_are_identical_on_every_rank(loop, capsys):
    code, output = checked(loop, capsys)
    assert code == 0
    assert output["answer"] == "identical"
    assert output["headline"] == (
        f"Identical: loops_on_ranks:{loop} on 2 ranks behaves like the reference, bit for bit, in 8 steps, 2 of them skipped."
    )
    assert output["ranks"] == {"number": 2, "diverging": [], "apart": None}
    assert output["oracle"] < 1e-5


@pytest.mark.long
def test_a_correct_loop_is_identical_in_fp32(capsys):
    assert checked("by_ddp", capsys, "--precision", "fp32")[1]["answer"] == "identical"


WRONG = {
    "alone": (["unsynchronised"], [0, 1], {"step": 0, "ranks": [1]}),
    "autograd_grad_through_ddp": (["unsynchronised-gradients"], [0, 1], {"step": 0, "ranks": [1]}),
    "by_ddp_as_on_one_rank": (["exchanges-every-microbatch", "mean-of-rank-means"], [0, 1], None),
    "by_hand_from_weights_of_its_own": (["ranks-start-apart"], [1], {"step": 0, "ranks": [1]}),
}
"""By loop: its faults, the ranks that diverge first, and the step after which ranks differ."""


@pytest.mark.usefixtures("match_with_rounding")
@pytest.mark.parametrize(
    ("match_with_rounding", "loop"),
    [
        ("few", "alone"),
        *(pytest.param("few", loop, marks=pytest.mark.long) for loop in list(WRONG)[1:]),
        pytest.param("all", "by_ddp_as_on_one_rank", marks=pytest.mark.slow),
    ],
    indirect=["match_with_rounding"],
)
def test_wrong_loops_are_named_with_the_ranks_that_diverge_first(loop, capsys):
    faults, diverging, apart = WRONG[loop]
    code, output = checked(loop, capsys)
    assert code == 1
    assert sorted(fault["name"] for fault in output["faults"]) == faults
    assert output["ranks"] == {"number": 2, "diverging": diverging, "apart": apart}


@pytest.mark.usefixtures("match_with_rounding")
@pytest.mark.parametrize("match_with_rounding", ["few"], indirect=True)
def test_exchanging_every_microbatch_is_not_a_bug(capsys):
    code, output = checked("by_ddp_without_no_sync", capsys)
    assert code == 0
    assert output["headline"].startswith("Not a bug, but not the same bits")
    assert [fault["name"] for fault in output["faults"]] == ["exchanges-every-microbatch"]
    assert (
        "    +        with nullcontext() if last else run.wrapped.no_sync():"
        not in output["faults"][0]["mend"]["ddp_step"]
    )
    assert output["ranks"]["apart"] is None


@pytest.mark.long
@pytest.mark.usefixtures("match_with_rounding")
@pytest.mark.parametrize("match_with_rounding", ["few"], indirect=True)
def test_a_fault_of_one_rank_is_found_on_several(capsys):
    code, output = checked("by_ddp_clipped_while_scaled", capsys)
    assert code == 1
    assert "clip-before-unscale" in [fault["name"] for fault in output["faults"]]
    assert output["answer"] == "fault"
    assert "All ranks keep the same model." in output["explanation"]


def test_graphs_that_are_kept_fail_on_several_ranks_too(capsys):
    code, output = checked("keeps_its_losses", capsys)
    assert (code, output["answer"]) == (1, "identical")
    assert output["graphs_kept"] > 2


def refused(loop, words, capsys, *more):
    assert main(["check", "--nproc", "2", f"loops_on_ranks:{loop}", *more]) == 2
    output = capsys.readouterr()
    assert not output.out
    assert re.match(rf"gradparity check: {words}", output.err), output.err
    assert output.err.count("\n") == 1
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        ("raises", r"rank 1 raised ValueError: no such batch \(loops_on_ranks.py, line \d+ in then\); the other ranks were st"),
        ("exits", r"rank 1 raised SystemExit: 0 \(loops_on_ranks.py, line \d+ in <lambda>\); the other ranks were stopped"),
        ("kills_itself", r"rank 1 died \(killed by SIGKILL\) without an exception; the other ranks were stopped"),
        ("one_step_fewer", r"rank 1 had finished while rank 0 still waited at loops_on_ranks.py, line \d+ in .*; make as many"),
        ("another_order", r"rank \d died \(killed by SIGABRT, which gloo sends if ranks exchange tensors of different sizes\) without an exception"),
        ("rank_1_does_nothing", r"loops_on_ranks:rank_1_does_nothing makes different numbers of steps \(8 on rank 0, 0 on"),
        ("own_process_group", r"rank \d raised ValueError: trying to initialize the default process group twice! \(loops_on"),
        ("other_draws_each_time", r"loops_on_ranks:other_draws_each_time does not repeat itself: a second run differs on rank 0 at"),
    ],
)  # fmt: skip
def test_a_rank_that_does_not_finish_gets_one_sentence(loop, words, capsys):
    refused(loop, words, capsys)


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        ("sleeps", r"rank 0 waited {seconds} s for another rank at loops_on_ranks.py, line \d+ in window_gradients; rank 1 is at loops_on"),
        ("all_sleep", r"rank 0, rank 1 had not finished after {four_times} s: rank 0 is at loops_on_ranks.py, line \d+ in all_sleep,"),
    ],
)  # fmt: skip
def test_a_rank_that_hangs_gets_one_sentence_in_time(loop, words, capsys):
    def attempt(seconds):
        said = words.format(seconds=f"{seconds:g}", four_times=f"{4 * seconds:g}")
        refused(loop, said, capsys, "--patience", f"{seconds}")

    with_some_patience(attempt)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nproc", "0"], f"--nproc is 0; allowed is 1 to {MOST_RANKS}"),
        (["--nproc", "-2"], f"--nproc is -2; allowed is 1 to {MOST_RANKS}"),
        (["--nproc", "1000"], f"--nproc is 1000; allowed is 1 to {MOST_RANKS}"),
        (["--nproc", "two"], "argument --nproc: invalid int value: 'two'"),
        (["--nproc", "2", "--patience", "0"], "--patience is 0; it takes seconds, more than 0"),
        (["--nproc", "2", "--patience", "nan"], "--patience is nan"),
        (["--nproc", "2", "loops_on_ranks:no_such_loop"], "loops_on_ranks has no no_such_loop"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, capsys):
    named = [] if ":" in arguments[-1] else ["loops_on_ranks:by_ddp"]
    assert main(["check", *arguments, *named]) == 2
    output = capsys.readouterr()
    assert not output.out
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_one_rank_is_the_check_without_nproc(capsys):
    assert main(["check", "--nproc", "1", "loops:example"]) == 0
    assert capsys.readouterr().out.startswith("Identical: loops:example behaves like the reference")


@pytest.mark.parametrize(("loop", "faults"), [("by_ddp_rounded", ()), ("alone", (RANK_FAULTS["unsynchronised"],))])
def test_rounding_is_told_from_a_fault_on_all_ranks_together(loop, faults, match_with_rounding, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    name = f"loops_on_ranks:{loop}"
    in_fp32 = launch(observe_in_fp32, 2, name)
    loops = [loop for _, loop in launch(observe_both, 2, name, "fp16", tmp_path)]
    assert launch(match_with_rounding, 2, loops, in_fp32, "fp16") == [faults] * 2


def test_faults_left_out_on_several_ranks_are_known():
    left_out = {name for name in FAULTS if name not in known_on_ranks()}
    raising = {name for name, fault in FAULTS.items() if fault.kind == FaultKind.RAISES}
    assert left_out == raising | set(NEEDING_UNUSED_PARAMETERS) | {"summed-loss"}
    assert not fits_on_ranks(FAULTS["summed-loss"])
    assert set(RANK_FAULTS) <= set(known_on_ranks())
