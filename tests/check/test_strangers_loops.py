"""A loop may do things by intent: they are followed or said not to be judged, and called wrong only if they are."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from rich.console import Console

import strangers_loops
from gradparity.check import check_loop
from gradparity.check.check_loop import check
from gradparity.check.intended.meant_numbers import meant_norm, meant_steps
from gradparity.check.intended.own_draws import DrawsWatcher, OwnDraws, with_own_draws, with_own_order
from gradparity.check.intended.own_freezing import frozen, with_frozen
from gradparity.check.intended.own_gradients import changes_gradients, with_own_gradients
from gradparity.check.intended.own_learning_rates import with_rates
from gradparity.check.intended.own_optimizers import (
    OwnOptimizer,
    follow_steps,
    own_optimizer,
    with_its_steps,
    with_own_optimizers,
)
from gradparity.check.intended.own_scaler import OwnScaler, build_without_scaler, with_own_scaler
from gradparity.check.intended.own_ways import WeightsWritten, own_loss
from gradparity.check.lookup import rounding
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.presentation.report import headline, remarks, show
from gradparity.check.running.loop_end import EndKind, LoopEnd
from gradparity.check.running.observe import ObservedLoop, observe, observe_reference
from gradparity.check.running.run_in_child import _made_for
from gradparity.check.running.uncheckable import why_uncheckable
from gradparity.check.running.user_loop import call_by_name
from gradparity.faults import FAULTS
from gradparity.faults.fault import Divergence
from gradparity.faults.patching import reference_with
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.trace.events import Trace
from gradparity.trace.record import about
from gradparity.trace.trace_file import Writer
from gradparity.training import Phase


def checked(loop, precision="fp32"):
    return check(partial(call_by_name, loop, "loop"), "loop", precision, quiet=True)


@pytest.fixture
def _no_dictionary(monkeypatch):
    """No loop of such a test has a fault of the dictionary, which takes most of the time."""
    look_up = check_loop.look_up
    monkeypatch.setattr(check_loop, "look_up", lambda *a, **k: look_up(*a, **{**k, "known": {}, "alone": True}))
    monkeypatch.setattr(check_loop, "match_with_rounding", lambda *_, **__: None)
    monkeypatch.setattr(check_loop, "overflows_apart", lambda *_, **__: None)


def observed(loop, build=build_without_scaler, **options):
    return observe(call_by_name(loop, "loop"), build, "fp32", **options)


# --- gradients that the loop changes itself ----------------------------------------------------------------------


@pytest.mark.usefixtures("_no_dictionary")
@pytest.mark.parametrize(
    "loop",
    [
        pytest.param(strangers_loops.clips_by_value, marks=pytest.mark.slow),
        pytest.param(strangers_loops.changing(strangers_loops.adaptively), marks=pytest.mark.slow),
        pytest.param(strangers_loops.clips_by_hooks, marks=pytest.mark.slow),
    ],
)
def test_gradients_that_a_loop_changes_itself_are_followed_and_said_not_to_be_judged(loop, capsys):
    result = checked(loop)
    assert (result.finding.match, result.passed, result.code) == (Match.IDENTICAL, True, 0)
    assert "with its gradients as the loop changes them" in headline(result)
    show(result, Console(width=300))
    assert "Not judged: how it changes its gradients here." in capsys.readouterr().out


@pytest.mark.usefixtures("_no_dictionary")
@pytest.mark.parametrize(
    "loop",
    [
        pytest.param(strangers_loops.clips_by_value_what_was_to_be_clipped_by_norm, marks=pytest.mark.slow),
        pytest.param(strangers_loops.changing(strangers_loops.halve), marks=pytest.mark.slow),
        pytest.param(strangers_loops.clips_by_value_and_never_empties, marks=pytest.mark.slow),
    ],
)
def test_a_loop_that_means_to_clip_by_norm_or_is_wrong_in_another_way_is_not_followed(loop):
    result = checked(loop)
    assert (result.passed, result.code) == (False, 1)


@pytest.mark.parametrize(
    ("loop", "hooks"), [(strangers_loops.clips_by_value, False), (strangers_loops.clips_by_hooks, True)]
)
def test_a_reference_that_takes_the_gradients_over_is_the_loop(loop, hooks, tmp_path):
    writer = Writer(tmp_path, about(), full=True)
    seen = observed(loop, writer=writer)
    writer.close()
    meant = [meant_steps(1), FAULTS["schedule-never-advanced"]]
    assert seen == observe_reference([*meant, with_own_gradients(tmp_path, hooks)], "fp32")
    assert seen != observe_reference([*meant, FAULTS["clipping-missing"]], "fp32")


def test_one_factor_for_all_gradients_of_a_step_is_no_change_of_its_own():
    assert not changes_gradients(observed(strangers_loops.changing(strangers_loops.halve)))
    assert changes_gradients(observed(strangers_loops.clips_by_value))


# --- precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "precision"),
    [
        (strangers_loops.autocasts_itself, "bf16"),
        (strangers_loops.autocasts_and_scales_itself, "bf16"),
        (strangers_loops.autocasts_itself_and_takes_the_scaler, "bf16"),
        (strangers_loops.scales_itself, "fp16"),
        (strangers_loops.one_batch_a_step, "fp32"),
    ],
)
def test_a_loop_is_checked_in_the_precision_of_its_own_autocast(loop, precision):
    loaded = call_by_name(loop, "loop")
    assert _made_for(loaded, loaded) == precision


@pytest.mark.slow
def test_a_right_loop_with_an_autocast_of_its_own_is_identical():
    result = checked(strangers_loops.autocasts_itself, None)
    assert (result.finding.match, result.probe.precision) == (Match.IDENTICAL, "bf16")
    assert "computes under an autocast of its own" in " ".join(remarks(result))


# --- what it does not take ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "precision"),
    [
        pytest.param(strangers_loops.scales_itself, "fp16", marks=pytest.mark.slow),
        pytest.param(strangers_loops.schedules_by_epoch, "fp32", marks=pytest.mark.slow),
    ],
)
def test_a_scaler_and_a_schedule_that_a_loop_does_not_take_do_not_differ(loop, precision):
    result = checked(loop, precision)
    assert (result.finding.match, result.explanation) == (Match.IDENTICAL, "")


def test_parameters_that_its_own_optimizer_leaves_out_may_keep_their_gradients():
    result = checked(strangers_loops.trains_some_layers)
    assert (result.finding.match, result.finding.tried, result.passed) == (Match.SAME_UPDATES, 0, True)
    assert any(line.startswith("Not trained: position, ") for line in remarks(result))


# --- what no reference does --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (strangers_loops.penalizes_weights, "adds a term of its own to the loss"),
        (strangers_loops.smooths_labels, "differentiates a loss of its own, not the one that it is given"),
        (strangers_loops.one_batch_a_step, ""),
        (strangers_loops.drops_the_odd_batch, ""),
    ],
)
def test_a_loss_that_is_no_multiple_of_the_given_one_is_seen(loop, words):
    assert own_loss(call_by_name(loop, "loop"), build_without_scaler, "fp32") == words


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (strangers_loops.lookahead, "writes the weights itself between steps"),
        (strangers_loops.sharpness_aware, "writes the weights itself within a step"),
        (strangers_loops.with_a_closure, ""),
        (strangers_loops.one_batch_a_step, ""),
    ],
)
def test_weights_that_something_else_than_the_optimizer_writes_are_seen(loop, words):
    weights = WeightsWritten()
    observed(loop, lambda precision: weights.of(build_without_scaler(precision)), go_on=weights.look)
    assert weights.found(by_the_given_optimizer=True)[0] == words
    assert weights.found(by_the_given_optimizer=False)[0] == ""


@pytest.mark.usefixtures("_no_dictionary")
@pytest.mark.parametrize(
    ("loop", "words"),
    [
        pytest.param(strangers_loops.lookahead, "itself between steps", marks=pytest.mark.slow),
        pytest.param(strangers_loops.sharpness_aware, "itself within a step", marks=pytest.mark.slow),
        pytest.param(strangers_loops.penalizes_weights, "adds a term of its own to the loss", marks=pytest.mark.slow),
    ],
)
def test_what_no_reference_does_cannot_be_judged_and_is_no_fault(loop, words):
    result = checked(loop)
    assert result.code == 2
    assert "cannot be judged: it" in headline(result)
    assert words in headline(result)
    assert "fault" not in headline(result)
    if loop is strangers_loops.lookahead:
        assert [line.source for line in result.lines] == ["p.copy_(s)  # by intent"]


@pytest.mark.slow
@pytest.mark.usefixtures("_no_dictionary")
def test_a_loop_with_a_penalty_that_an_audit_finds_wrong_is_wrong():
    result = checked(strangers_loops.penalizes_weights_and_never_empties)
    assert result.code == 1
    assert "has a fault" in headline(result)


# --- frozen parameters, and optimizers of its own ----------------------------------------------------------------


def test_the_reference_freezes_what_a_loop_freezes():
    seen = observed(strangers_loops.freezes_a_layer)
    each = frozen(seen)
    assert set(each) == {("embedding.weight",)}
    assert seen == observe_reference([with_frozen(each)], "fp32")
    assert seen != observe_reference([], "fp32")
    wrong = observed(strangers_loops.freezes_a_layer_and_never_empties)
    assert wrong != observe_reference([with_frozen(frozen(wrong))], "fp32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (strangers_loops.freezes_a_layer, "with embedding.weight frozen"),
        (strangers_loops.unfreezes_in_the_second_epoch, "with position and position_correction frozen"),
        (strangers_loops.descends_by_hand, "with 1 microbatch a step"),
    ],
)
def test_a_loop_that_freezes_or_descends_by_hand_is_followed(loop, words):
    result = checked(loop)
    assert (result.finding.match, result.code) == (Match.IDENTICAL, 0), headline(result)
    assert words in headline(result)
    assert "wrong" not in " ".join(remarks(result))
    assert "Not trained" not in " ".join(remarks(result))


def test_an_optimizer_that_gets_a_group_later_is_built_again_with_it():
    model = torch.nn.Linear(2, 1)
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    first = own_optimizer(optimizer, names)
    optimizer.add_param_group({"params": [model.bias], "lr": 0.2})
    whole = with_its_steps([first, own_optimizer(optimizer, names)])
    assert whole.names == {"weight", "bias"}
    built = eval(whole.code_that_follows, {"torch": torch, "model": model, "follow_steps": follow_steps})
    groups = []
    for _ in range(2):
        built.step()
        groups.append([group["lr"] for group in built.param_groups])
    assert groups == [[0.1], [0.1, 0.2]]


def test_what_a_loop_means_can_be_combined(tmp_path):
    draws = OwnDraws(((0, 1),), (b"state",))
    scaler = OwnScaler(1.0, 2.0, 0.5, 1, enabled=True)
    meant = [
        *(meant_norm(1.0), meant_steps(2), with_frozen([("position",)]), with_own_draws(draws), with_own_order(draws)),
        *(with_own_gradients(tmp_path, hooks=True), with_own_scaler(scaler), FAULTS["one-epoch-missing"]),
    ]
    optimizers = with_own_optimizers([OwnOptimizer("SGD", ())]), FAULTS["schedule-never-advanced"]
    for others in (optimizers, (with_rates([(1.0, 1.0)]),)):
        assert reference_with([*meant, *others])


# --- numbers, batches and ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fault"), [(meant_steps(2), "last-window-dropped"), (meant_norm(1.0), "clip-by-largest-norm")]
)
def test_a_fault_shows_beside_a_number_that_the_loop_means(change, fault):
    both = observe_reference([change, FAULTS[fault]], "fp32")
    assert both.end.finished
    assert both not in (observe_reference([change], "fp32"), observe_reference([FAULTS[fault]], "fp32"))


def test_a_dropped_batch_is_named_with_the_number_of_steps_that_the_loop_means():
    changes = [meant_steps(2), FAULTS["clipping-missing"], FAULTS["schedule-never-advanced"]]
    seen = observed(strangers_loops.drops_the_odd_batch)
    assert seen != observe_reference(changes, "fp32")
    assert seen == observe_reference([*changes, FAULTS["last-window-dropped"]], "fp32")


def drawn(loop):
    found = []

    def build(precision):
        cast = build_without_scaler(precision)
        found.append(DrawsWatcher(cast.model, cast.batches))
        return cast

    observed(loop, build)
    return found[0]


def test_a_batch_that_is_differentiated_twice_is_one_batch():
    assert drawn(strangers_loops.differentiates_twice).batches_in_a_row() == 22
    assert drawn(strangers_loops.one_batch_a_step).batches_in_a_row() == 22


def test_a_batch_that_is_never_trained_on_is_known():
    assert drawn(strangers_loops.drops_the_odd_batch).never_taken() == (10,)
    assert drawn(strangers_loops.one_batch_a_step).never_taken() == ()


def test_nothing_is_read_in_a_transform_of_torch_func():
    cast = build_without_scaler("fp32")
    watcher = DrawsWatcher(cast.model, cast.batches)
    cast.model.forward = lambda tokens: tokens
    torch.func.grad(lambda x: cast.model(cast.batches[0].inputs).sum() + x)(torch.ones(()))
    assert not watcher.own().states


@pytest.mark.slow
def test_a_loop_that_raises_is_said_to_raise_and_not_to_be_close_to_a_fault():
    result = checked(strangers_loops.raises_after_a_step)
    assert (result.code, result.finding.match) == (2, Match.UNKNOWN)
    assert "did not finish: RuntimeError: result type Float" in headline(result)
    assert result.explanation == ""


def test_an_end_of_file_comes_with_the_way_to_rewind():
    ended = ObservedLoop(Trace({}, []), [], LoopEnd(EndKind.RAISED, "EOFError"))
    assert "call plan.checkpoint.seek(0)" in why_uncheckable(ended, "")
    other = replace(ended, end=LoopEnd(EndKind.RAISED, "ValueError"))
    assert "seek" not in why_uncheckable(other, "")


def test_a_loop_prints_until_it_has_ended_once(capsys):
    def loop(model):
        print("an epoch")
        if model is None:
            raise ValueError

    loaded = call_by_name(loop, "loop")
    for model in (None, 1, 2):
        try:
            loaded(model=model)
        except ValueError:
            continue
    assert capsys.readouterr().err == "an epoch\n" * 2


def test_no_fault_in_the_first_loss_explains_a_loop_with_the_right_one(monkeypatch):
    monkeypatch.setattr(rounding, "first_match", lambda *a, **_: known.append([*a[3]]))
    monkeypatch.setattr(rounding, "_with_its_norms", lambda *_: list(FAULTS.values()))
    known, loop = [], ObservedLoop(Trace({}, []), [])
    at_once, later = Place(0, 0, Phase.FORWARD), Place(4, None, Phase.CLIPPED)
    for first in (at_once, later):
        rounding.match_with_rounding(loop, loop, "fp32", first=first)
    _, all_of_them, _, others = known  # each time after the reference itself
    in_the_loss = [f for f in all_of_them if f.first == Divergence(at_once, Part.LOSS)]
    assert FAULTS["not-divided-at-all"] in in_the_loss
    assert others == [f for f in all_of_them if f not in in_the_loss]
