"""All bad loops by name, with the sentence and the exit code that `gradparity check` gives each of them."""

import types

import loops_that_do_not_return
import loops_that_leave_things
import loops_that_train_nothing
import not_loops

_MODULES = (loops_that_do_not_return, loops_that_leave_things, loops_that_train_nothing, not_loops)

RAISING = {
    "raises_at_once": r"did not finish: ValueError: no data \(loops_that_do_not_return.py, line \d+ in raises_at_once\)",
    "raises_after_a_step": r"RuntimeError: CUDA out of memory, say \(loops_that_do_not_return.py, line \d+ in raises_after_a_step\)",
    "raises_in_a_hook": r"ZeroDivisionError: division by zero \(loops_that_do_not_return.py, line \d+ in <lambda>\)",
    "raises_from_another": "RuntimeError: no configuration",
    "raises_a_group": r"ExceptionGroup: two workers \(2 sub-exceptions\)",
    "raises_what_cannot_be_told": r"SpeechlessError: its message cannot be printed \(loops_that_do_not_return.py, line \d+ in raises_what_cannot_be_told\)",
    "raises_a_base_exception": "did not finish: Rude: out of the way",
    "is_cancelled": "did not finish: CancelledError",
    "interrupts_itself": r"the loop itself raises KeyboardInterrupt \(loops_that_do_not_return.py, line \d+ in interrupts_itself\)",
    "recurses": "RecursionError: maximum recursion depth exceeded",
    "wants_too_much_memory": "DefaultCPUAllocator: can't allocate memory",
    "wants_too_long_a_list": "did not finish: MemoryError",
    "warns_as_an_error": "did not finish: UserWarning: Detected call of",
    "asks_the_user": "did not finish: EOFError: EOF when reading a line",
    "starts_a_debugger": "did not finish: BdbQuit",
    "swallows_everything_once": "did not finish: it was stopped after five times as many forwards",
    "exits": r"calls exit instead of returning: SystemExit \(loops_that_do_not_return.py, line \d+ in exits\)",
    "exits_with_words": "calls exit instead of returning: SystemExit: bye",
}

ENDING_THE_PROCESS = {
    "exits_at_once": "ended its process with exit code 0, as os._exit does; make it return instead",
    "is_killed": "was killed by SIGKILL",
    "aborts": r"crashed its process with SIGABRT \(loops_that_do_not_return.py, line \d+ in aborts\)",
    "crashes": r"crashed its process with SIGSEGV \(loops_that_do_not_return.py, line \d+ in crashes\)",
    "forks": "forks, and both processes return from it",
    "leaves_the_family": "ended its process with exit code 0",
}

GOING_ON = {
    "leaves_a_thread_that_trains": r"leaves the thread .+ \(loops_that_leave_things.py, line \d+ in go_on_training\) running",
    "leaves_a_thread_that_waits": r"leaves the thread .+ \(loops_that_leave_things.py, line \d+ in wait_for_nothing\) running",
    "leaves_a_timer": r"leaves the thread Thread-\d+ running when it returns; wait for it in the loop, or stop it",
    "leaves_a_process": "leaves the process ForkProcess-.+ running",
}

TRAINING_NOTHING = {
    "does_nothing": "computed no gradients, and never made a step with the optimizer that it was given",
    "returns_false": "computed no gradients, and never made a step",
    "only_forwards": "computed no gradients, and never made a step",
    "never_steps": "computed gradients, but never made a step with the optimizer that it was given",
    "makes_a_coroutine": "TypeError: it returned a coroutine that is never awaited",
    "awaits_in_part": "TypeError: it returned a coroutine that is never awaited",
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
    "wants_more": "takes learning_rate and device, but a loop gets only model,",
    "takes_only_places": "takes model and optimizer",
    "draws_elsewhere": "does not repeat itself: a second run differs at step 0, microbatch 0, forward: loss",
}

FAULTY = {
    "replaces_a_layer": "replaces the parameter up.weight, and the optimizer does not hold the new one",
    "replaces_a_layer_later": "replaces the parameter up.weight",
    "adds_a_layer": "adds the parameter scale, and the optimizer does not hold the new one",
    "changes_the_dtype": r"the parameter position differs in dtype: float32 in the reference and float64 in the",
    "replaces_the_tensors_under_swap": r"the parameter position differs in dtype: float32 in the reference",
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
"""By loop: the function that does not return."""

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

PARTIAL = {"awaits_in_part", "a_generator_in_part"}
"""Loops by ``functools.partial``, which has no ``__module__``."""

LOOPS = {
    name: (module, thing)
    for module in _MODULES
    for name, thing in vars(module).items()
    if getattr(thing, "__module__", None) == module.__name__
    or name in PARTIAL
    or (isinstance(thing, types.ModuleType) and name[:2] == "a_")
}
"""By name: the module of a bad loop, and the loop."""


def loop_named(name):
    return LOOPS[name][1]


def path_of(name):
    """Return the name of a bad loop on the command line."""
    return f"{LOOPS[name][0].__name__}:{name}"
