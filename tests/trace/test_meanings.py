"""All faults of the dictionary as recordings: whatever ``diff`` says of one is true of it, or it says nothing."""

from collections import Counter
from functools import cache

import pytest

from gradparity.check.running.observe import observe
from gradparity.faults import FAULTS
from gradparity.faults.all_faults import THEMES
from gradparity.faults.fault import FaultKind
from gradparity.faults.patching import reference_with
from gradparity.parity.explanation_kinds import Meaning
from gradparity.trace import compare_fingerprints, explain_gradients
from gradparity.trace.diff import compare_traces
from gradparity.trace.trace_file import kept

THEME_OF = {fault.name: theme for theme, faults in THEMES.items() for fault in faults}
ROUNDING = {name for name, fault in FAULTS.items() if fault.kind == FaultKind.ROUNDING}
RAISES = {name for name, fault in FAULTS.items() if fault.kind == FaultKind.RAISES}


def of(*themes):
    return {name for name, theme in THEME_OF.items() if theme in themes}


TRUE_OF = {
    Meaning.ROUNDING: ROUNDING,
    Meaning.SIGN: {"gradient-ascent"},
    Meaning.LOSS_SCALE: {"loss-not-scaled", "loss-not-scaled-after-the-first-microbatch", "loss-scaled-twice"},
    Meaning.LOSS_FACTOR: of("loss_normalization") | {"first-token-of-each-sequence-counted"},
    Meaning.SUMMED: {"summed-loss"},
    # The loss differs though it starts from the same state: its definition, its data or its masks, the mode or dtype.
    Meaning.LOSS: of("loss_normalization", "train_and_eval", "weight_averages", "mixed_precision")
    | of("loss_targets", "forward", "resumed_data_and_state") | {
        "first-microbatch-again-and-again", "first-microbatch-consumed", "branch-never-taken", "branch-always-taken", "loss-squared",
        "running-total-differentiated-with-its-graph-kept", "random-numbers-not-restored", "buffers-not-restored",
    },
    Meaning.SHARED: {"naive", "naive-and-added-out-of-place"},
    Meaning.ZEROS: {
        "zeros-instead-of-none", "none-filled-with-zeros", "unused-materialized-as-zeros",
        "unused-parameters-touched-by-zero",
    },
    Meaning.NO_GRADIENT: {
        "weight-without-gradient", "layer-frozen", "reentrant-checkpoint-without-gradient-at-its-input",
    },
    Meaning.LEFT_OVER: {"zero-grad-missing", "zero-grad-once-an-epoch", "only-one-group-zeroed"},
    Meaning.NOT_EMPTIED: {"zero-grad-missing", "zero-grad-once-an-epoch", "only-one-group-zeroed"},
    Meaning.EMPTIED: {
        "zero-grad-before-every-microbatch", "zero-grad-between-backward-and-unscale", "zero-grad-before-step",
        "zeros-before-step", "zero-grad-after-the-first-backward",
    },
    # The last of them divides by hand, clips, and has the scaler unscale: its clip does come before unscale_.
    Meaning.CLIPPED_INSIDE: {
        "clip-every-microbatch", "clip-before-backward", "clip-every-microbatch-unscaled",
        "unscaled-by-hand-and-by-step",
    },
    Meaning.BACKWARD: of("detached_graph", "activation_checkpoints", "manual_wiring") | ROUNDING | {"gradients-rounded-to-half-precision"},
    Meaning.CLIPPED_SCALED: {"clip-before-unscale", "clip-without-unscale"},
    Meaning.NOT_UNSCALED: {"parameter-missing-from-the-optimizer", "parameter-replaced-after-the-optimizer-was-built"},
    # The norm before and after, whoever changes it: clipping, or somebody who writes the gradients there.
    Meaning.CLIP: of("clipping", "clip_thresholds") | {
        "unscaled-again-inside-the-optimizer", "half-of-the-parameters-unscaled-late",
        "l2-penalty-on-top-of-weight-decay", "parameter-missing-from-the-optimizer",
        "parameter-replaced-after-the-optimizer-was-built", "gradients-exchanged-in-half-precision",
        "unscaled-by-the-next-scale",
    },
    # By a clip of torch.nn.utils; the others clip all at once.
    Meaning.CLIPS: {
        "clip-twice", "clip-per-group", "clip-per-parameter", "clip-every-microbatch-unscaled", "clip-every-microbatch",
        "clip-before-backward",
    },
    Meaning.BACKWARDS: of("accumulation_windows", "backward") | {
        "unscale-every-microbatch", "stepped-twice", "scaler-stepped-twice", "step-before-backward",
        "validation-gradients-left-over", "trained-on-the-validation-data", "step-repeated-after-the-resume",
    },
    Meaning.SKIPPED: {"optimizer-stepped-past-the-scaler", "overflow-looked-for-in-some-parameters-only"},
    Meaning.PAST_THE_SCALER: {"optimizer-stepped-past-the-scaler"},
    Meaning.UPDATE: {
        "decayed-twice", "unused-parameters-decayed", "amsgrad-state-lost", "step-counter-stands-still",
        "moments-forgotten-every-epoch", "moments-forgotten-every-step", "moments-not-restored",
        "moments-restored-to-other-parameters", "step-counters-in-low-precision", "moments-in-half-precision",
        "moments-rounded-at-the-resume", "step-to-allocate-state-counted",
    },
    Meaning.WRITTEN: {
        "averaged-weights-swapped-in-for-good", "model-not-restored", "weights-rounded-in-the-checkpoint",
        "layer-drawn-anew-after-loading", "weights-in-half-precision",
    },
    Meaning.SCHEDULE_AFTER_SKIP: {"schedule-advanced-on-skipped-steps"},
    Meaning.SCHEDULE: of("schedules") - {"schedule-advanced-on-skipped-steps"},
    Meaning.RATE: {"optimizer-not-restored", "learning-rate-reset-by-hand", "first-learning-rate-again-after-the-resume"},
    Meaning.SCALE: {"update-missing"},
    Meaning.BUFFERS: {"recomputed-batchnorm-moves-twice", "recomputed-outside-autocast"},
    Meaning.STEPS: RAISES | {
        "one-epoch-missing", "epoch-repeated-after-the-resume", "half-of-the-parameters-unscaled-late",
    },
}  # fmt: skip
"""Of which faults each meaning is true. Beside those here nothing may be said."""

AT_LEAST = {"fp32": 115, "fp16": 140}
"""Faults of which something is said, so that to say nothing is no way to pass."""


class RecordSink:
    """Keeps the tensors of each record."""

    def __init__(self):
        self.tensors = {}

    def write(self, record, seen):
        self.tensors[id(record)] = kept(seen)


@cache
def seen(name, precision):
    names, keeper = reference_with([FAULTS[name]] if name else []), RecordSink()
    return observe(names["reference"], names["build"], precision, writer=keeper).trace, keeper.tensors


def said(name, precision, monkeypatch, full):
    """The meaning of the first difference, and whether there is one."""
    (reference, ours), (candidate, theirs) = seen(None, precision), seen(name, precision)
    tensors = ours | theirs if full else {}
    for module in (compare_fingerprints, explain_gradients):
        monkeypatch.setattr(module, "tensor_of", lambda _, r, part, n: tensors.get(id(r), {}).get(f"{part}/{n}"))
    found = next((c for c in compare_traces(reference, candidate) if c.mismatches), None)
    return found and found.likely_cause


FEW = {next(name for name in FAULTS if name in names) for names in TRUE_OF.values()}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("names", ["few", pytest.param("all", marks=pytest.mark.slow)])
def test_no_meaning_is_wrong_over_the_faults(names, precision, full, monkeypatch):
    meanings = {name: said(name, precision, monkeypatch, full) for name in (FEW if names == "few" else FAULTS)}
    wrong = {n: s for n, s in meanings.items() if s and s.words and n not in TRUE_OF.get(s.meaning, ())}
    counts = Counter("right" if s.words else "absent" for n, s in meanings.items() if s and n not in wrong)
    counts |= {"wrong": len(wrong), "no difference": sum(s is None for s in meanings.values())}
    print(names, precision, "full" if full else "hashes", dict(counts))
    assert not wrong
    assert names == "few" or counts["right"] >= AT_LEAST[precision], counts
