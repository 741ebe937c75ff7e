"""Bad loops through `gradparity check`: each is told by a sentence of its own, and none takes the check down with it."""

import re
import sys
import types
from functools import cache, partial
from pathlib import Path

import pytest

import bad_loops
from gradparity.check import command, lookup, rounding
from gradparity.check.command import check
from gradparity.check.lookup import Match
from gradparity.check.observe import observe_reference
from gradparity.check.user_loop import call_by_name
from gradparity.cli.main import main
from gradparity.faults import FAULTS
from gradparity.processes import sandbox
from patience import with_some_patience

RAISING = {
    "raises_at_once": r"did not finish: ValueError: no data \(bad_loops.py, line \d+ in raises_at_once\)",
    "raises_after_a_step": r"RuntimeError: CUDA out of memory, say \(bad_loops.py, line \d+ in raises_after_a_step\)",
    "raises_in_a_hook": r"ZeroDivisionError: division by zero \(bad_loops.py, line \d+ in <lambda>\)",
    "raises_from_another": "RuntimeError: no configuration",
    "raises_a_group": r"ExceptionGroup: two workers \(2 sub-exceptions\)",
    "raises_what_cannot_be_told": r"SpeechlessError: its message cannot be printed \(bad_loops.py, line \d+ in raises_what_cannot_be_told\)",
    "raises_a_base_exception": "did not finish: Rude: out of the way",
    "is_cancelled": "did not finish: CancelledError",
    "interrupts_itself": r"the loop itself raises KeyboardInterrupt \(bad_loops.py, line \d+ in interrupts_itself\)",
    "recurses": "RecursionError: maximum recursion depth exceeded",
    "wants_too_much_memory": "DefaultCPUAllocator: can't allocate memory",
    "wants_too_long_a_list": "did not finish: MemoryError",
    "warns_as_an_error": "did not finish: UserWarning: Detected call of",
    "asks_the_user": "did not finish: EOFError: EOF when reading a line",
    "starts_a_debugger": "did not finish: BdbQuit",
    "swallows_everything_once": "did not finish: it was stopped after five times as many forwards",
    "exits": r"calls exit instead of returning: SystemExit \(bad_loops.py, line \d+ in exits\)",
    "exits_with_words": "calls exit instead of returning: SystemExit: bye",
    "changes_the_dtype": "RuntimeError: expected m1 and m2 to have the same dtype",
    "replaces_the_tensors_under_swap": "RuntimeError: expected m1 and m2 to have the same dtype",
}

ENDING_THE_PROCESS = {
    "exits_at_once": "ended its process with exit code 0, as os._exit does; make it return instead",
    "is_killed": "was killed by SIGKILL",
    "aborts": r"crashed its process with SIGABRT \(bad_loops.py, line \d+ in aborts\)",
    "crashes": r"crashed its process with SIGSEGV \(bad_loops.py, line \d+ in crashes\)",
    "forks": "forks, and both processes return from it",
    "leaves_the_family": "ended its process with exit code 0",
}

GOING_ON = {
    "leaves_a_thread_that_trains": r"leaves the thread .+ \(bad_loops.py, line \d+ in go_on_training\) running",
    "leaves_a_thread_that_waits": r"leaves the thread .+ \(bad_loops.py, line \d+ in wait_for_nothing\) running",
    "leaves_a_timer": r"leaves the thread Thread-\d+ running when it returns; wait for it in the loop, or stop it",
    "leaves_a_process": "leaves the process ForkProcess-.+ running",
}

TRAINING_NOTHING = {
    "does_nothing": "computed no gradients, and never made a step with the optimizer that it was given",
    "returns_false": "computed no gradients, and never made a step",
    "only_forwards": "computed no gradients, and never made a step",
    "never_steps": "computed gradients, but never made a step with the optimizer that it was given",
    "makes_a_coroutine": "TypeError: it returned a coroutine, that is never awaited",
    "awaits_in_part": "TypeError: it returned a coroutine, that is never awaited",
    "builds_its_own_optimizer": r"trains the model with an optimizer of its own \(AdamW\), not with the one that it was given",
    "trains_a_copy": "trains other parameters than the given model's, such as a copy's, with an AdamW of its own",
    "copies_the_optimizer_too": "trains other parameters than the given model's",
    "trains_a_copy_with_the_optimizer": "Before that, it computes gradients, but none for the given model's parameters",
    "replaces_the_groups": "Before that, it leaves an optimizer that holds none of the model's parameters",
    "loads_by_assignment": "Before that, it leaves an optimizer that holds none of the model's parameters",
}

NO_LOOPS = {
    "a_module": "is not a plain function",
    "a_generator_in_part": "is not a plain function",
    "yields_asynchronously": "is not a plain function",
    "Trainer": "is not a plain function",
    "wants_more": "takes learning_rate and device; the arguments of a loop are model,",
    "takes_only_places": "takes model and optimizer",
    "draws_elsewhere": "does not repeat itself: a second run differs at step 0, microbatch 0, forward: loss",
}

FAULTY = {
    "replaces_a_layer": "replaces the parameter up.weight, and the optimizer does not hold the new one",
    "replaces_a_layer_later": "replaces the parameter up.weight",
    "adds_a_layer": "adds the parameter scale, and the optimizer does not hold the new one",
    "freezes_everything": "like the reference with one fault: loss-detached",
    "loses_its_numbers": "computes a NaN or infinite loss from the beginning, so no gradient is finite, and all its last 8",
    "overflows_always": "computes a NaN or infinite loss from the beginning",
    "loses_its_weights": "has NaN or infinite weights from the beginning",
    "loses_its_numbers_later": "NaN or infinite weights from step 1 on, so no gradient is finite, and all weights become",
    "leaves_float64": "The same updates, but .+ leaves the default dtype at torch.float64, and the reference then computes",
    "leaves_a_device": "leaves the default device at meta, and the reference then",
    "leaves_gradients_off": "leaves gradient recording off, and the reference then",
    "leaves_inference_on": "leaves inference mode on",
    "leaves_autocast_on": "leaves autocast on and autocast's depth at 1, and the reference then",
    "leaves_a_patched_function": "leaves a replaced torch.nn.functional.dropout, and the reference then",
    "leaves_a_patched_method": "leaves a replaced torch.optim.adamw.AdamW.step, and the reference then",
    "leaves_a_global_hook": "leaves a hook in torch.nn.modules.module._global_forward_hooks, and the reference then",
    "leaves_a_mode_on": r"leaves function modes \(Twice\) on, and the reference then",
}

RIGHT = {
    "swaps_the_data": "",
    "leaves_a_command": "",
    "trains_in_a_thread": "",
    "keeps_a_pool": "",
    "talks_a_lot": "",
    "keeps_an_average": "",
    "compiles": "",
    "leaves_anomalies_detected": "It leaves anomaly detection on, which makes no difference here",
    "leaves_a_harmless_global_hook": "leaves a hook in torch.optim.optimizer._global_optimizer_post_hooks, which makes no",
    "leaves_hooks": "leaves hooks on the module up, the parameter up.weight, the model and the optimizer; remove them before",
    "leaves_much_that_is_harmless": "deterministic algorithms at 2, .+ threads at 2 and the working directory at /, which",
}

ENDLESS = {
    "sleeps": "sleeps",
    "spins": "spins",
    "waits_for_a_lock": "waits_for_a_lock",
    "joins_a_thread_that_never_ends": "joins_a_thread_that_never_ends",
    "hangs_in_c": "hangs_in_c",
    "hangs_deaf": "spins",
    "only_looks": "only_looks",
    "swallows_everything": "swallows_everything",
}
"""By the function in which they are."""

KINDS = RAISING, ENDING_THE_PROCESS, GOING_ON, TRAINING_NOTHING, NO_LOOPS, FAULTY, RIGHT

CODES = {
    **dict.fromkeys([*RAISING, *ENDING_THE_PROCESS, *GOING_ON, *TRAINING_NOTHING, *NO_LOOPS], 2),
    **dict.fromkeys(FAULTY, 1),
    **dict.fromkeys(RIGHT, 0),
}
SENTENCES = {name: sentence for kind in KINDS for name, sentence in kind.items()}

HELPERS = {
    *("leaving", "starts", "go_on_training", "wait_for_nothing", "double_the_gradients", "autocast_on", "inference_on"),
    *("patch_dropout", "patch_step", "hook_all_modules", "hook_all_optimizers", "hook_the_model", "a_mode_on"),
    *("change_many_harmless_things", "SpeechlessError", "Rude"),
}


@cache
def right(precision):
    """The reference, run once for all of them."""
    return observe_reference([], precision)


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_loops(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(
        command, "observe_reference", lambda faults, *rest: observe_reference(faults, *rest) if faults else right(*rest)
    )


@pytest.fixture(params=["few", pytest.param("all", marks=pytest.mark.long)])
def known(request, monkeypatch):
    """The faults that are looked for: few, or all, which have tests of their own."""
    if request.param == "all":
        return FAULTS
    few = {name: FAULTS[name] for name in ("loss-detached", "naive")}
    monkeypatch.setattr(command, "look_up", partial(lookup.look_up, known=few))
    monkeypatch.setattr(rounding, "FAULTS", few)
    return few


def test_every_bad_loop_has_an_expected_sentence():
    ours = {
        name
        for name, thing in vars(bad_loops).items()
        if getattr(thing, "__module__", None) == "bad_loops"
        or (isinstance(thing, types.ModuleType) and name[:2] == "a_")
    }
    assert ours - HELPERS | {"awaits_in_part", "a_generator_in_part"} == {*SENTENCES, *ENDLESS, "puts_off_the_alarm"}
    assert len(ours) > 60


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("known", "name"),
    [("few", name) for kind in KINDS for name in list(kind)[:2]]
    + [pytest.param("few", name, marks=pytest.mark.long) for kind in KINDS for name in list(kind)[2:]]
    + [pytest.param("all", name, marks=pytest.mark.long) for name in FAULTY],
    indirect=["known"],
)
def test_each_bad_loop_gets_its_sentence_and_exit_code(name, capsys):
    code = main(["check", f"bad_loops:{name}"])
    out, err = capsys.readouterr()
    assert (code, bool(err)) == (CODES[name], not out), out or err
    told = out or err
    assert re.search(SENTENCES[name], told)
    assert "Traceback" not in told
    if name in RIGHT:
        assert out.startswith("Identical: ")
    if err:
        assert err.count("\n") == 1


def test_an_uncheckable_loop_is_compared_with_single_faults_only(known):
    checked = check(partial(call_by_name, bad_loops.overflows_always, "loop"), "loop", "fp16")
    assert checked.finding.tried == len(known)


@pytest.mark.parametrize("name", ENDLESS)
def test_a_loop_that_never_returns_is_reported_with_its_line(name, capsys):
    def attempt(seconds):
        assert main(["check", f"bad_loops:{name}", "--patience", f"{seconds}"]) == 2
        told = capsys.readouterr().err
        said = rf"gradparity check: bad_loops:{name} has not finished after {seconds:g} s \(bad_loops.py, line \d+ in"
        assert re.match(said, told)
        assert f" in {ENDLESS[name]}); make it return, or raise --patience\n" in told

    with_some_patience(attempt)


def test_a_loop_that_cancels_the_alarm_is_killed_by_the_parent(monkeypatch, capsys):
    monkeypatch.setattr(sandbox, "GRACE", 4)

    def attempt(seconds):
        assert main(["check", "bad_loops:puts_off_the_alarm", "--patience", f"{seconds}"]) == 2
        said = f"bad_loops:puts_off_the_alarm has not finished after {seconds:g} s; make it return"
        assert said in capsys.readouterr().err

    with_some_patience(attempt)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("known", "name", "precision"),
    [
        ("few", "loses_its_numbers", "bf16"),
        ("few", "loses_its_weights", "fp32"),
        ("few", "trains_a_copy_with_the_optimizer", "fp32"),
        pytest.param("all", "loses_its_numbers", "fp32", marks=pytest.mark.long),
        pytest.param("all", "loses_its_weights", "bf16", marks=pytest.mark.long),
        pytest.param("all", "trains_a_copy_with_the_optimizer", "bf16", marks=pytest.mark.long),
    ],
    indirect=["known"],
)
def test_a_bad_loop_without_a_scaler_is_unknown_in_other_precisions(name, precision):
    checked = check(partial(call_by_name, getattr(bad_loops, name), name), name, precision)
    assert checked.finding.match == Match.UNKNOWN
    assert checked.code == 1
    assert checked.probe.uncheckable or checked.probe.observed.end.finished


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import os; os._exit(0)", "the import of naughty ended its process with exit code 0"),
        ("import sys; sys.exit(1)", r"naughty cannot be imported \(SystemExit: 1\)"),
        (
            "raise KeyboardInterrupt",
            r"the loop itself raises KeyboardInterrupt \(naughty.py, line 1 in <module>\)",
        ),
        ("raise BaseExceptionGroup('x', [GeneratorExit()])", r"naughty cannot be imported \(BaseExceptionGroup: x"),
    ],
)
def test_a_module_that_raises_or_exits_on_import_gets_one_sentence(source, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("naughty.py").write_text(source)
    assert main(["check", "naughty:train"]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_a_module_whose_import_never_finishes_is_reported_with_its_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("naughty.py").write_text("while True: pass")

    def attempt(seconds):
        assert main(["check", "naughty:train", "--patience", f"{seconds}"]) == 2
        said = f"the import of naughty has not finished after {seconds:g} s (naughty.py, line 1 in <module>)"
        assert said in capsys.readouterr().err

    with_some_patience(attempt)


def test_settings_changed_by_an_import_are_not_blamed_on_the_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sets = "torch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)\n"
    Path("settled.py").write_text(f"import torch\n{sets}from loops import example as train\n")
    assert main(["check", "settled:train"]) == 0
    assert capsys.readouterr().out.startswith("Identical: settled:train")
