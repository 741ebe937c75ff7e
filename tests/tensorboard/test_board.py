"""What is written can be read back: by TensorBoard in float32, and from JSONL in full."""

import json
import math
import os
import re
import shutil
import threading
from collections import deque
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from disk import no_file_longer_than
from gradparity.errors import DiskError, UserError
from gradparity.parity.lockstep import lockstep
from gradparity.parity.step_metrics import StepMetricsReader
from gradparity.parity.verdict import Verdict
from gradparity.studies.train_two_ways import build
from gradparity.tensorboard import FIGURES_FILE, Board, comparison_record, new_folder, tensorboard_command
from gradparity.tensorboard.board import file_lengths, has_histogram, truncate_files
from gradparity.tensorboard.divergence_map import DivergenceMap
from gradparity.tensorboard.events import EVENTS
from gradparity.tensorboard.layout import phase_name
from gradparity.training import Phase
from small import small_config, small_lanes, small_task


def read(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run of a loop that differs, as written and as it was."""
    folder = tmp_path_factory.mktemp("board")
    config = small_config(task="digits_mlp", candidate="summed-loss")
    lanes = small_lanes(config)
    readers = [StepMetricsReader(lane.run) for lane in lanes]
    found, readings = [], []
    parameters = [name for name, _ in lanes[0].run.model.named_parameters()]
    verdict = Verdict()
    with Board(folder, "mlp", verdict, DivergenceMap(parameters), "summed-loss") as board:
        for comparison in lockstep(*lanes, build.windows(config, small_task("digits_mlp"))):
            verdict.add(comparison)
            board.add_comparison(comparison)
            found.append(comparison)
            both = [r.take(m) for r, m in zip(readers, (comparison.reference, comparison.candidate), strict=True)]
            if all(both):
                board.add_metrics(comparison.place.step, *both)
                readings.append(both)
        board.add_evaluation(7, "accuracy", 0.5, 0.25)
        board.add_page("9 page", "**told**")
    return folder, found, readings


@pytest.mark.parametrize(("run", "side"), [("by_backward", 0), ("by_summed-loss", 1)])
def test_both_runs_are_overlaid_under_the_same_tags(written, run, side):
    folder, _, readings = written
    events = read(folder / run)
    assert set(events.Tags()["scalars"]) == {
        "1 glance/mlp, 2 loss",
        "3 schedule/mlp, learning rate",
        "3 schedule/mlp, loss scale",
        "1 glance/mlp, 3 held-out accuracy",
        "2 gradient norm/mlp, before clipping",
        "2 gradient norm/mlp, after clipping",
    }
    for tag, field in {"1 glance/mlp, 2 loss": "loss", "2 gradient norm/mlp, after clipping": "clipped_norm"}.items():
        values = events.Scalars(tag)
        assert [e.step for e in values] == list(range(7))
        assert [e.value for e in values] == pytest.approx([getattr(r[side], field) for r in readings], rel=1e-6)
    assert events.Scalars("1 glance/mlp, 3 held-out accuracy")[0].value == (0.5, 0.25)[side]


def test_differences_are_on_a_logarithmic_scale_by_phase(written):
    folder, found, _ = written
    events = read(folder / "how_far_apart")
    for phase in Phase:
        drawn = {
            e.step: e.value
            for e in events.Scalars(
                f"4 difference at each phase, log10 of 1 + ULP/mlp, {phase + 1} {phase.name.lower()}"
            )
        }
        largest = dict.fromkeys(drawn, 0)
        for comparison in found:
            if comparison.place.phase == phase and comparison.place.step >= 0:
                for figures in comparison.figures.values():
                    largest[comparison.place.step] = max(largest[comparison.place.step], figures.max_ulp)
        assert drawn == pytest.approx({step: math.log10(1 + ulp) for step, ulp in largest.items()}, rel=1e-6)
        assert drawn[0] > 0 or phase == Phase.FORWARD, "the first forward is the same, and nothing after it"


def test_text_pages_are_there(written):
    (page,) = read(written[0] / "how_far_apart").Tensors("9 page/mlp/text_summary")
    assert page.tensor_proto.string_val[0] == b"**told**"


def test_every_element_is_in_the_histogram_of_its_phase(written):
    folder, found, _ = written
    events = read(folder / "how_far_apart")
    for phase in Phase:
        counts = dict.fromkeys(range(7), 0)
        identical = dict.fromkeys(range(7), 0)
        for comparison in found:
            if comparison.place.phase == phase and comparison.place.step >= 0:
                differing = sum(figures.differing for figures in comparison.figures.values())
                counts[comparison.place.step] += comparison.numbers
                identical[comparison.place.step] += comparison.numbers - differing
        drawn = events.Histograms(f"6 bits of the ULP distance/mlp, {phase_name(phase)}")
        assert {event.step: event.histogram_value.num for event in drawn} == counts
        for event in drawn:
            first = dict(zip(event.histogram_value.bucket_limit, event.histogram_value.bucket, strict=True)).get(0.5, 0)
            assert first == identical[event.step]


def test_histograms_of_a_long_run_are_thinned():
    taken = [step for step in range(1000) if has_histogram(step)]
    assert taken[:64] == list(range(64))
    assert len(taken) == 64 + 3 * 32 + 31


def test_the_map_the_first_difference_and_the_charts_are_there(written):
    events = read(written[0] / "how_far_apart")
    maps = [f"7 divergence map of each phase/mlp, {phase_name(phase)}" for phase in Phase]
    assert set(events.Tags()["images"]) == {"1 glance/mlp, 1 divergence map", *maps}
    (card,) = events.Tensors("1 first divergence/mlp/text_summary")
    assert "At step 0, microbatch 2, phase accumulated" in card.tensor_proto.string_val[0].decode()
    (verdict,) = events.Tensors("2 verdict/mlp/text_summary")
    assert verdict.tensor_proto.string_val[0].decode().startswith("**Not identical")
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    tags = {tag for run in ("by_backward", "how_far_apart") for tag in read(written[0] / run).Tags()["scalars"]}
    for chart in layout.category[0].chart:
        for pattern in chart.multiline.tag:
            assert any(re.match(pattern, tag) for tag in tags), pattern
    assert not any("(" in tag for tag in tags), "Custom Scalars would not draw it"


def test_exact_figures_are_a_line_for_each_comparison(written):
    folder, found, _ = written
    lines = [json.loads(line) for line in (folder / FIGURES_FILE).read_text().splitlines()]
    assert lines == json.loads(json.dumps([comparison_record(comparison) for comparison in found]))
    first = next(line for line in lines if line["differing"])
    assert (first["step"], first["microbatch"], first["phase"]) == (0, 2, "accumulated")
    figures = first["figures"]["gradients"]
    assert figures["max_ulp"] >= 1
    assert 0 < figures["relative_norm"] < 1e-6
    assert figures["relative_norm"] == next(c for c in found if c.mismatches).figures["gradients"].relative_norm


def test_figures_are_strict_json_even_where_they_are_not_numbers(written):
    comparison = next(c for c in written[1] if c.figures)
    comparison.figures["gradients"] = comparison.figures["gradients"]._replace(cosine=math.nan, norm_ratio=math.inf)
    figures = json.loads(json.dumps(comparison_record(comparison), allow_nan=False))["figures"]["gradients"]
    assert figures["cosine"] is figures["norm_ratio"] is None


def test_lines_are_readable_during_the_run(tmp_path):
    config = small_config(task="digits_mlp")
    with Board(tmp_path, "mlp", Verdict()) as board:
        for count, comparison in enumerate(lockstep(*small_lanes(config), []), start=1):
            board.add_comparison(comparison)
            assert len((tmp_path / FIGURES_FILE).read_text().splitlines()) == count


def test_a_method_returns_once_its_file_is_written_and_no_thread_writes(tmp_path):
    before = threading.active_count()
    with Board(tmp_path, "mlp", Verdict()) as board:
        for number in range(3):
            board.add_evaluation(number, "accuracy", 0.5, 0.5)
            assert len(read(tmp_path / "reference").Scalars("1 glance/mlp, 3 held-out accuracy")) == number + 1
        assert threading.active_count() == before


def test_sync_reaches_every_file(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").resolve()))
    with Board(tmp_path, "mlp", Verdict()) as board:
        board.sync()
    assert {path.relative_to(tmp_path) for path in synced} == {Path(name) for name in file_lengths(tmp_path)}
    assert len(synced) == 4


def fill(folder, write):
    """Let a board ``write`` until the disk is full; how often it did, and what was said then."""
    written = count()
    with no_file_longer_than(5_000), pytest.raises(DiskError) as refused, Board(folder, "mlp", Verdict()) as board:
        deque(map(partial(write, board), written))
    return next(written) - 1, str(refused.value)


def test_a_full_disk_is_reported_with_the_file_name_and_keeps_what_was_written(tmp_path, capfd):
    comparison = next(lockstep(*small_lanes(small_config(task="digits_mlp")), []))
    number, sentence = fill(tmp_path / "figures", lambda board, _: board.add_comparison(comparison))
    assert sentence == f"{tmp_path}/figures/{FIGURES_FILE} cannot be written (File too large); make room there"
    *lines, half = (tmp_path / "figures" / FIGURES_FILE).read_text().split("\n")
    assert len(lines) == number > 5
    assert {json.loads(line)["step"] for line in lines} == {-1}
    assert lines[0].startswith(half)

    number, sentence = fill(tmp_path / "events", lambda board, step: board.add_evaluation(step, "accuracy", 0.5, 0.5))
    assert re.fullmatch(
        rf"{tmp_path}/events/reference/{EVENTS}.* cannot be written \(File too large\); make room there", sentence
    )
    assert len(read(tmp_path / "events" / "reference").Scalars("1 glance/mlp, 3 held-out accuracy")) == number > 50
    assert capfd.readouterr().err == ""


def test_a_board_is_truncated_and_continued(written, tmp_path):
    folder, *_ = written
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    half = {name: length - 1 for name, length in file_lengths(folder).items()}
    truncate_files(again, half)
    (again / "reference").mkdir()
    (again / "reference" / f"{EVENTS}.9.later").write_bytes(b"later")
    (again / "notes.txt").write_text("mine")
    truncate_files(again, half)
    assert file_lengths(again) == half
    assert (again / "notes.txt").exists()
    with pytest.raises(UserError, match=r"is shorter than it was at the checkpoint; bring it back, or train again"):
        truncate_files(again, file_lengths(folder))
    assert file_lengths(again) == half, "nothing was touched"
    truncate_files(again, {})
    assert file_lengths(again) == {}


def test_folders_are_numbered_and_nothing_is_written_over(tmp_path):
    parent = tmp_path / "runs" / "x"
    assert [new_folder(parent).name for _ in range(3)] == ["1", "2", "3"]
    (parent / "17").mkdir()
    (parent / "notes").mkdir()
    assert new_folder(parent).name == "18"
    Board(parent / "18", "x", Verdict()).__exit__(None, None, None)
    with pytest.raises(FileExistsError):
        Board(parent / "18", "x", Verdict())


def test_the_command_to_type_is_quoted_and_starts_a_program_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    program, *rest = tensorboard_command(tmp_path / "a b").split(" ", 1)
    assert program.endswith("tensorboard")
    assert rest == [f"--logdir '{tmp_path}/a b' --host localhost"]
