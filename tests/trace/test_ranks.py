"""``record`` on several ranks leaves one trace a rank; ``diff`` compares them rank by rank and names the one that parts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ranks
from gradparity.cli.main import main
from gradparity.errors import UserError
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.lockstep import Comparison
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import END, Place
from gradparity.parity.state import Part
from gradparity.parity.verdict import Verdict
from gradparity.processes.launch import launch
from gradparity.trace.ranks import first_to_differ, paired, traces_of
from gradparity.training import Phase


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    launch(ranks.all_of_them, 2, folder)
    return folder


def diff(traces, reference, candidate, capsys, *more):
    code = main(["diff", str(traces / reference), str(traces / candidate), "--format", "json", *more])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("reference", "candidate"), [("ddp", "again"), ("ddp", "hand"), ("fsdp", "fsdp, full")])
def test_the_same_training_is_the_same_on_every_rank(traces, capsys, reference, candidate):
    code, found = diff(traces, reference, candidate, capsys)
    assert code == 0
    assert found["parity"]
    assert found["diverging"] == []
    assert found["apart"] is None, "nor are shards, which are other ones on each rank in both"
    assert [rank["steps"] for rank in found["ranks"]] == [3, 3]
    assert all(rank["numbers"] > 8_000 for rank in found["ranks"])
    assert all(rank["doubts"] == [] for rank in found["ranks"])


def test_a_rank_with_a_different_batch_is_named(traces, capsys):
    code, found = diff(traces, "again", "other", capsys)
    assert code == 1
    assert found["diverging"] == [1]
    # Rank 0 differs later in the same step: when the gradients have been exchanged.
    places = [(r["first"]["step"], r["first"]["phase"], r["first"]["part"]) for r in found["ranks"]]
    assert places == [(2, "accumulated", "gradients"), (2, "forward", "loss")]
    assert found["ranks"][1]["first"]["figures"]["max_ulp"] > 0
    assert found["apart"] is None
    assert main(["diff", str(traces / "again"), str(traces / "other")]) == 1
    assert "Rank 1 diverges first, at step 2, microbatch 0, phase forward." in capsys.readouterr().out


def test_unsynchronised_ranks_diverge_from_ddp_at_once_and_from_each_other(traces, capsys):
    code, found = diff(traces, "ddp", "manual", capsys)
    assert code == 1
    assert found["diverging"] == [0, 1]
    assert {(r["first"]["step"], r["first"]["phase"]) for r in found["ranks"]} == {(0, "accumulated")}
    assert found["apart"] == {"step": 0, "ranks": [1]}
    assert main(["diff", str(traces / "ddp"), str(traces / "manual")]) == 1
    assert (
        "After step 0 the candidate's ranks are no longer one model: rank 1 and rank 0 differ."
        in capsys.readouterr().out
    )


def verdict_at(place):
    mismatch = Mismatch(Part.PARAMETERS, "w", Kind.BITS, "1", "2")
    return Verdict(first=place and (Comparison(place, None, None, {}, 0, [mismatch], {}, 1.0), mismatch))


def test_the_ranks_that_differ_first_are_those_at_the_earliest_place():
    early, late = Place(1, None, Phase.CLIPPED), Place(2, 0, Phase.FORWARD)
    assert first_to_differ([verdict_at(place) for place in (late, early, None, early, END)]) == [1, 3]
    assert first_to_differ([verdict_at(None), verdict_at(END)]) == [1], "an identical rank differs nowhere"
    assert first_to_differ([verdict_at(None), verdict_at(None)]) == []


def test_tensorboard_gets_a_folder_for_each_rank(traces, tmp_path, capsys):
    assert diff(traces, "again", "other", capsys, "--tensorboard", str(tmp_path / "board"))[0] == 1
    assert {path.name for path in (tmp_path / "board").iterdir()} == {"rank0", "rank1"}


def test_two_ranks_of_one_training_may_be_compared_by_naming_their_folders(traces, capsys):
    code, found = diff(traces, "ddp/rank0", "ddp/rank1", capsys)
    assert code == 1
    assert (found["first"]["step"], found["first"]["part"]) == (0, "loss")


def test_another_number_of_ranks_is_refused_with_a_way_out(traces, tmp_path):
    with pytest.raises(
        UserError, match=r"is of 2 ranks and .* of 1 rank; record both with as many, or name the folders"
    ):
        paired(traces / "ddp", traces / "ddp" / "rank0")
    shutil.copytree(traces / "ddp" / "rank1", tmp_path / "rank1")
    with pytest.raises(UserError, match="holds a trace of rank 1 and none of rank 0"):
        traces_of(tmp_path)


@pytest.mark.long
def test_under_torchrun_too(traces, tmp_path, capsys):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "--local-addr",
        "127.0.0.1",
    ]
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*command, Path(ranks.__file__), tmp_path / "torchrun"],
        capture_output=True, text=True, check=False, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert diff(Path("/"), traces / "ddp", tmp_path / "torchrun", capsys)[0] == 0
