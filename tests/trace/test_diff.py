"""Two traces held against each other, from the command line and from Python."""

import json
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.optim import SGD

import gradparity
from gradparity.cli.main import main
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.explanation_kinds import Meaning
from gradparity.parity.random_stream import RandomStream
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record, Trace
from gradparity.trace.matching_names import named_alike
from gradparity.trace.report import event_sequence, past_the_scaler, sentences, trace_difference
from gradparity.trace.trace_file import TRACE_FILE, read
from gradparity.training import Phase
from watched import changed, config_of, trace_of

pytestmark = pytest.mark.processor


def first_of(found):
    comparison, mismatch = found.verdict.first
    return comparison.place.step, comparison.place.microbatch, comparison.place.phase, mismatch.part, mismatch.kind


@pytest.mark.parametrize(
    ("right", "wrong", "where"),
    [
        (" / window.normalizer", " / 100", (0, 0, Phase.FORWARD, Part.LOSS, Kind.BITS)),
        ("    run.clip(run.parameters)\n", "    pass\n", (0, None, Phase.CLIPPED, Part.GRADIENTS, Kind.BITS)),
        ("run.optimizer.zero_grad(set_to_none=True)", "pass", (1, 0, Phase.ACCUMULATED, Part.GRADIENTS, Kind.BITS)),
        ("        yield Moment(Phase.ACCUMULATED, index)\n", "        if index == 0: run.optimizer.zero_grad()\n", (0, 1, Phase.ACCUMULATED, Part.GRADIENTS, Kind.BITS)),
        ("    yield Moment(Phase.CLIPPED)\n", "    run.optimizer.zero_grad()\n", (0, None, Phase.CLIPPED, Part.GRADIENTS, Kind.PRESENCE)),
        ("run.scaler.update()", "run.scaler.update(64.0)", (1, 0, Phase.FORWARD, Part.SCALER, Kind.VALUE)),
        ("if run.scaler.get_scale() >= scale", "if True", (4, 0, Phase.FORWARD, Part.SCHEDULER, Kind.VALUE)),
        ("    yield Moment(Phase.STEPPED)", "    next(iter(run.parameters)).data.mul_(2)", (1, 0, Phase.FORWARD, Part.PARAMETERS, Kind.BITS)),
        ("    yield Moment(Phase.STEPPED)", "    run.model.position_correction.data.add_(0.0)", None),
        ("    scale = run.scaler.get_scale()\n", "    run.optimizer.param_groups[0]['weight_decay'] = 0.0; scale = run.scaler.get_scale()\n", (0, None, Phase.CLIPPED, Part.OPTIMIZER, Kind.VALUE)),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_one_thing_wrong_is_found_where_it_happens(right, wrong, where):
    found = trace_difference(trace_of(config_of()), trace_of(config_of(), changed(right, wrong)))
    if where is None:
        assert found.parity
        return
    step, microbatch, phase, part, kind = where
    if part in (Part.SCALER, Part.PARAMETERS):  # told first, though the loss that follows from it differs at this place
        assert Part.LOSS in {m.part for m in found.verdict.first[0].mismatches}
    assert first_of(found) == (step, microbatch, phase, part, kind)


@pytest.mark.parametrize(
    ("candidate", "where"),
    [
        ("naive", (0, 0, Phase.ACCUMULATED, Part.ALIASING, Kind.VALUE)),
        ("clip-before-unscale", (0, None, Phase.UNSCALED, Part.GRADIENTS, Kind.BITS)),
    ],
)
def test_the_loops_that_lockstep_catches_are_caught_from_outside_too(candidate, where):
    assert first_of(trace_difference(trace_of(config_of()), trace_of(config_of(candidate=candidate)))) == where


def test_different_random_numbers_are_reported_and_count_only_by_their_effect():
    without_dropout = config_of(task="digits_mlp")
    found = trace_difference(trace_of(without_dropout), trace_of(without_dropout, seed=6))
    assert found.parity
    assert found.draws == 0
    assert "From step 0 on, torch's random stream is in a different state, which has no effect" in sentences(found)[-1]
    found = trace_difference(trace_of(config_of()), trace_of(config_of(), seed=6))
    assert first_of(found)[:4] == (0, 0, Phase.FORWARD, Part.LOSS)
    assert sentences(found)[-1] == "From step 0 on, torch's random stream is in a different state."


def test_a_loop_that_stops_early_is_reported_as_such():
    whole = trace_of(config_of(task="digits_mlp"))
    late = (Event.UPDATE, Event.SCHEDULE)
    short = replace(whole, records=[r for r in whole.records if r.step < 5 or (r.step == 5 and r.event in late)])
    found = trace_difference(whole, short)
    assert not found.parity
    comparison, mismatch = found.verdict.first
    assert (comparison.place.step, mismatch.kind, mismatch.reference, mismatch.candidate) == (
        5,
        Kind.PRESENCE,
        "stops here",
        "does not",
    )
    assert found.events[0] == 5
    assert event_sequence(found.events[2]) == "nothing"


def test_a_trace_that_was_cut_off_or_made_on_another_machine_is_compared_with_a_note():
    trace = trace_of(config_of(task="digits_mlp"))
    found = trace_difference(trace, replace(trace, complete=False, about={**trace.about, "threads": 2}))
    assert found.parity
    assert "cut off" in found.doubts[0]
    assert "threads is 1 in the reference and 2 in the candidate" in found.doubts[1]


def test_nothing_compared_is_no_parity():
    empty = Trace({}, [Record(Event.END, 0)])
    assert not trace_difference(empty, empty).parity
    assert sentences(trace_difference(empty, empty))[0].startswith("Nothing was compared")


class Holder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


@pytest.mark.parametrize(
    "wrap",
    [torch.nn.DataParallel, Holder, lambda model: torch.compile(model, backend="eager"), lambda m: Holder(Holder(m))],
)
def test_names_are_compared_without_prefixes_of_wrappers(tmp_path, wrap):
    for name, wrapper in (("plain", lambda model: model), ("wrapped", wrap)):
        with RandomStream(1).active():
            model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
            outer = wrapper(model)
            optimizer = SGD(outer.parameters(), lr=0.1, momentum=0.9)
            with gradparity.record(outer, optimizer, tmp_path / name, full=True):
                for scale in (1, 2 if name == "plain" else 3):
                    optimizer.zero_grad()
                    (outer(torch.randn(6, 4)).square().sum() * scale).backward()
                    optimizer.step()
    found = trace_difference(read(tmp_path / "plain"), read(tmp_path / "wrapped"))
    comparison, mismatch = found.verdict.first
    assert (comparison.place.step, comparison.place.phase, mismatch.part) == (1, Phase.FORWARD, Part.LOSS)
    assert mismatch.figures.norm_ratio == pytest.approx(1.5), "the tensors are found by their own names"
    assert {m.name for m in comparison.mismatches} == {"loss"}


def of_names(*names):
    gradients = {Part.GRADIENTS: dict.fromkeys(names)}
    return Trace({}, [Record(Event.READY, 0, None, gradients)])


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (("a", "b"), ("model.a", "model.b"), ("a", "b")),
        (("model.a", "model.b"), ("a", "b"), ("a", "b")),
        (("a.x", "b.x"), ("module.a._orig_mod.x", "module.b.x"), ("a.x", "b.x")),
        (("x", "module.x"), ("module.x", "module.module.x"), ("x", "module.x")),
        (("module.x", "x"), ("module.x", "x"), ("module.x", "x")),
    ],
)
def test_names_match_without_components_of_wrappers(ours, theirs, told):
    for trace in named_alike(of_names(*ours), of_names(*theirs)):
        assert tuple(trace.records[0].parts[Part.GRADIENTS]) == told


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("a", "b"), ("model.a", "other.b")),
        (("x.w", "module.x.w"), ("y.w", "module.y.w")),
        (("my_module.w",), ("my_w",)),
        (("lin.w", "module.lin.w"), ("lin.w",)),
    ],
)
def test_two_names_never_become_one_and_names_without_counterpart_come_first_in_the_report(ours, theirs):
    named = named_alike(of_names(*ours), of_names(*theirs))
    for names, trace in zip((ours, theirs), named, strict=True):
        assert len(trace.records[0].parts[Part.GRADIENTS]) == len(names)
    assert "same name" in sentences(trace_difference(of_names(*ours), of_names(*theirs)))[0]


def recorded(tmp_path, name, loop, model=None):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = SGD(model.parameters(), lr=0.1)
    with gradparity.record(model, optimizer, tmp_path / name):
        loop(model, optimizer)
    return read(tmp_path / name)


X = torch.linspace(-1, 1, 24).view(6, 4)


def test_other_weights_at_the_end_are_seen_where_a_module_of_ones_own_is_called_module(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 2)
            self.module = nn.Module()
            self.module.lin = nn.Linear(4, 2)

        def forward(self, x):
            return self.lin(x) + self.module.lin(x).tanh()

    def loop(bad):
        def train(model, optimizer):
            model(X).square().mean().backward()
            optimizer.step()
            model.lin.weight.data.add_(bad)

        return train

    torch.manual_seed(0)
    good = recorded(tmp_path, "good", loop(0.0), Twice())
    torch.manual_seed(0)
    found = trace_difference(good, recorded(tmp_path, "bad", loop(1.0), Twice()))
    assert found.verdict.first[1].name == "lin.weight"
    assert found.verdict.likely_cause.meaning == Meaning.WRITTEN
    assert not found.updates.same, "the weights that are left are not the same"


def several(model, optimizer):
    for _ in range(3):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        noise = torch.randn(6, 4)
        model(noise).square().mean().backward()
        optimizer.step()


def one(model, optimizer):
    for _ in range(3):
        optimizer.zero_grad()
        first, noise = model(X).square().mean(), torch.randn(6, 4)
        (first + model(noise).square().mean()).backward()
        optimizer.step()


def test_the_report_opens_with_same_updates(tmp_path, capsys):
    recorded(tmp_path, "several", several)
    recorded(tmp_path, "one", one)
    assert main(["diff", str(tmp_path / "several"), str(tmp_path / "one")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "The same updates: after each of 3 steps, all parameters and the optimizer's state are identical"
    )
    assert lines[0].endswith("The loops differ on the way.")
    assert any("is the sum of the reference's 2 losses" in line for line in lines)
    assert not any("random" in line for line in lines), "they draw the same numbers"
    assert main(["diff", str(tmp_path / "several"), str(tmp_path / "one"), "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["parity"], told["same_updates"], told["meaning"]) == (False, True, Meaning.SUMMED)


def test_another_update_is_not_called_the_same(tmp_path):
    def other(model, optimizer):
        several(model, optimizer)
        several(model, optimizer)

    found = trace_difference(recorded(tmp_path, "a", one), recorded(tmp_path, "b", other))
    assert not found.updates.same
    assert "The reference makes 3 steps, the candidate 6." in sentences(found)


def test_a_loss_of_opposite_sign_is_reported(tmp_path):
    def loop(sign):
        return lambda model, optimizer: ((sign * model(X).square().sum()).backward(), optimizer.step())

    found = trace_difference(recorded(tmp_path, "a", loop(1)), recorded(tmp_path, "b", loop(-1)))
    loss = found.verdict.first[1]
    assert loss.candidate == f"-{loss.reference}"
    assert found.verdict.likely_cause.meaning == Meaning.SIGN


@pytest.mark.parametrize("by_hand", [False, True])
def test_gradients_that_were_left_over_beside_scaled_ones_are_not_called_rounding(tmp_path, by_hand):
    def loop(empty):
        def train(model, optimizer):
            scaler = torch.amp.GradScaler("cpu")
            for _ in range(3):
                if empty and by_hand:
                    for p in model.parameters():
                        p.grad = None
                elif empty:
                    optimizer.zero_grad()
                scaler.scale(model(X).square().mean()).backward()
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                scaler.step(optimizer)
                scaler.update()

        return train

    found = trace_difference(recorded(tmp_path, "a", loop(True)), recorded(tmp_path, "b", loop(False)))
    assert found.verdict.likely_cause.meaning == (Meaning.BACKWARD if by_hand else Meaning.NOT_EMPTIED)
    assert "ounding" not in found.verdict.explanation


def test_identical_updates_by_different_calls_are_reported_as_such():
    trace = trace_of(config_of())
    bypassed = replace(trace, records=[r for r in trace.records if r.event != Event.CLIP])
    found = trace_difference(trace, bypassed)
    assert found.parity
    assert sentences(found)[0].startswith("Identical updates, bit for bit: 7 steps")
    assert sentences(trace_difference(trace, trace))[0].startswith("Identical, bit for bit")


def test_an_optimizer_stepped_past_the_scaler_is_reported():
    through = ["zero_grad", "forward", "accumulated", "unscaled", "scaler_step", "ready", "step", "update"]
    past = [event for event in through if event != "scaler_step"]
    assert "The candidate calls optimizer.step itself" in past_the_scaler(through, past)[0]
    assert "The reference calls optimizer.step itself" in past_the_scaler(past, through)[0]
    assert past_the_scaler(through, through) == past_the_scaler(past, past) == []


def test_never_do_more_values_differ_than_were_compared(tmp_path):
    def loop(steps, more):
        def train(model, optimizer):
            for _ in range(steps):
                optimizer.zero_grad()
                model(X).sum().backward()
                for _ in range(more):
                    model(X).mean().backward()
                optimizer.step()

        return train

    found = trace_difference(recorded(tmp_path, "a", loop(9, 0)), recorded(tmp_path, "b", loop(1, 2)))
    assert all(cell.differing <= cell.compared for cell in found.verdict.cells.values())
    assert found.verdict.likely_cause.meaning == Meaning.BACKWARDS
    assert not any("clip" in line for line in sentences(found) if "phase clipped" not in line)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("traces")
    for name, lr in (("one", 0.1), ("same", 0.1), ("other", 0.2)):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = SGD(model.parameters(), lr=lr)
        with gradparity.record(model, optimizer, base / name, full=True):
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.ones(2, 3)).sum().backward()
                optimizer.step()
    return base


def test_the_command_says_whether_two_traces_are_the_same(folders, capsys):
    assert main(["diff", str(folders / "one"), str(folders / "same")]) == 0
    assert "Identical, bit for bit: 3 steps" in capsys.readouterr().out
    assert main(["diff", str(folders / "one"), str(folders / "other")]) == 1
    out = capsys.readouterr().out
    assert (
        "At step 0, phase clipped, the optimizer's group 0.lr is 0.1 in the reference and 0.2 in the candidate." in out
    )


def test_the_command_answers_programs(folders, capsys):
    assert main(["diff", str(folders / "one"), str(folders / "other"), "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["parity"] is False
    assert {*told} == {
        "parity", "outcome", "same_updates", "headline", "steps", "numbers", "first", "meaning", "explanation",
        "unmatched", "events", "random_numbers_differ_from_step", "doubts", "cells",
    }  # fmt: skip
    assert {*told["first"]} == {
        "step", "phase", "microbatch", "part", "name", "kind", "reference", "candidate", "figures", "norm_ratio",
    }  # fmt: skip
    assert told["first"] | {"step": 0, "phase": "clipped", "part": "optimizer", "name": "group 0.lr"} == told["first"]
    assert {"phase", "part", "compared", "differing", "max_ulp", "lone"} == told["cells"][0].keys()
    assert max(cell["max_ulp"] for cell in told["cells"]) > 0
    assert main(["diff", str(folders / "one"), str(folders / "same"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["first"] is None


def test_the_command_writes_its_result_for_tensorboard(folders, tmp_path, capsys):
    assert main(["diff", str(folders / "one"), str(folders / "other"), "--tensorboard", str(tmp_path / "board")]) == 1
    accumulator = EventAccumulator(str(tmp_path / "board" / "how_far_apart")).Reload()
    assert any("ULP" in tag for tag in accumulator.Tags()["scalars"])
    assert (tmp_path / "board" / "differences.jsonl").read_text().count("\n") > 3
    assert main(["diff", str(folders / "one"), str(folders / "other"), "--tensorboard", str(tmp_path / "board")]) == 2
    assert "name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["diff"], "reference, candidate"),
        (["diff", "nowhere", "nowhere"], "nowhere/trace.jsonl cannot be read"),
        (["diff", "a", "b", "--format", "xml"], "xml"),
        (["difff"], "'difff' is no command; choose from"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1


def test_help_fits_a_screen(capsys):
    assert main([]) == main(["--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) < 40
    with pytest.raises(SystemExit) as exited:
        main(["diff", "--help"])
    assert exited.value.code == 0


def test_a_corrupted_trace_is_named(folders, tmp_path, capsys):
    (tmp_path / TRACE_FILE).write_text("no trace\n")
    assert main(["diff", str(folders / "one"), str(tmp_path)]) == 2
    assert "line 1, is not a line of a trace; record the loop anew" in capsys.readouterr().err
