"""Frameworks × scenarios, asserted cell by cell; what is known of each difference; and what is printed."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from gradparity.parity.difference_kinds import Kind
from gradparity.parity.figures import Figures
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.state import Part
from gradparity.studies.frameworks import watch
from gradparity.studies.frameworks.known_issues import KNOWN, cause
from gradparity.studies.frameworks.on_ranks import ON_RANKS
from gradparity.studies.frameworks.result import cell, difference_page, differences_of, size_in_words, unexplained
from gradparity.studies.frameworks.scenario import RANK_SCENARIOS, SCENARIOS, TWO_RANKS
from gradparity.studies.frameworks.watch import FRAMEWORKS, NOT_INSTALLED, framework_outcome, loop_outcome
from scripts import run

pytestmark = pytest.mark.processor

SCRIPT = Path(__file__).parents[3] / "experiments" / "frameworks.py"

MEANS = ("At step 0, microbatch 0, phase forward", "loss")
PARTIAL = ("At step 3, microbatch 0, phase forward", "loss")
SHIFTED = ("At step 0, phase clipped", "gradients")
NO_AUTOCAST = ("At step 0, microbatch 0, phase forward", "loss")
NO_SCALE = ("At step 0, microbatch 0, phase forward", "scaler")
SCHEDULE = ("At step 4, phase clipped", "optimizer")
RESUMED = ("At step 2, microbatch 0, phase forward", "loss")

ROUNDED = MEANS, ("At step 0, microbatch 0, phase accumulated", "gradients")
"""The loss may be rounded to the same bits, and the gradient not: one or the other, by processor."""

EXPECTED = {
    "Lightning, automatic": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "fp16 and an overflow": SCHEDULE,
        "resume mid-epoch": RESUMED,
        "resume with dropout off": RESUMED,
    },
    "Lightning, manual": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "fp16 and clipping": ("At step 0, phase unscaled", "gradients"),
        "fp16 and an overflow": SCHEDULE,
        "resume mid-epoch": RESUMED,
        "resume with dropout off": RESUMED,
    },
    "Fabric": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "fp16 and an overflow": SCHEDULE,
        "resume mid-epoch": RESUMED,
    },
    "Fabric, word for word": {
        **dict.fromkeys([name for name in SCENARIOS if name != "K = 1"], SHIFTED),
        "uneven token counts": MEANS,
        "fp16 and clipping": ("At step 0, phase unscaled", "gradients"),
        "fp16 and an overflow": ("At step 0, phase unscaled", "gradients"),
    },
    "Accelerate": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "fp16 and clipping": NO_SCALE,
        "fp16 and an overflow": NO_SCALE,
    },
    "Accelerate, token count": {
        "uneven token counts": ROUNDED,
        "fp16 and clipping": NO_SCALE,
        "fp16 and an overflow": NO_SCALE,
    },
    "transformers": {"fp16 and clipping": NO_SCALE, "fp16 and an overflow": NO_SCALE},
    "Ignite": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL,
        "bf16": NO_AUTOCAST,
        "fp16 and an overflow": NO_AUTOCAST,
        "schedule per step": ("After the last step", "optimizer"),
        "resume mid-epoch": RESUMED,
        "resume with dropout off": RESUMED,
    },
}

EXCHANGED = ("At step 0, microbatch 0, phase accumulated", "gradients")
NOT_EXCHANGED = ("At step 0, microbatch 2, phase accumulated", "gradients")
PARTIAL_ON_RANKS = ("At step 1, microbatch 0, phase forward", "loss")
SHUFFLED_AND_MEANS = {"data in order": MEANS, "uneven token counts": MEANS}

EXPECTED_ON_RANKS = {
    "Lightning, automatic": SHUFFLED_AND_MEANS | {"partial last window": PARTIAL_ON_RANKS},
    "Lightning, manual": SHUFFLED_AND_MEANS
    | dict.fromkeys(("K = 3", "partial last window", "clipping", "bf16", "fp16 and clipping"), EXCHANGED),
    "Lightning, toggle_model": SHUFFLED_AND_MEANS
    | {"partial last window": PARTIAL_ON_RANKS, "fp16 and clipping": ("At step 0, phase unscaled", "gradients")},
    "Lightning, autograd": SHUFFLED_AND_MEANS
    | dict.fromkeys(("K = 3", "partial last window", "clipping", "bf16", "fp16 and clipping"), NOT_EXCHANGED)
    | {"K = 1": EXCHANGED},
    "Lightning, averaged": SHUFFLED_AND_MEANS | {"partial last window": PARTIAL_ON_RANKS},
    "Fabric": {"uneven token counts": MEANS, "partial last window": PARTIAL_ON_RANKS},
    "Accelerate": {
        "uneven token counts": MEANS,
        "partial last window": PARTIAL_ON_RANKS,
        "fp16 and clipping": NO_SCALE,
    },
    "Accelerate, token count": {"uneven token counts": ROUNDED, "fp16 and clipping": NO_SCALE},
    "transformers": {"fp16 and clipping": NO_SCALE},
}
EVERYTHING = EXPECTED | {
    framework: EXPECTED.get(framework, {}) | {TWO_RANKS + scenario: found for scenario, found in row.items()}
    for framework, row in EXPECTED_ON_RANKS.items()
}
"""On one rank and on two."""

CELLS = [(framework, scenario) for framework in FRAMEWORKS for scenario in SCENARIOS] + [
    (framework, scenario) for framework in ON_RANKS for scenario in RANK_SCENARIOS
]

RATIOS = {
    ("Lightning, automatic", "partial last window"): 2 / 3,
    ("Fabric", "partial last window"): 2 / 3,
    ("Accelerate", "partial last window"): 2 / 3,
    ("Lightning, automatic", "2 ranks: partial last window"): 2 / 3,
}

STEPS = {  # reference, framework
    ("Lightning, automatic", "partial last window"): [4, 4],
    ("Lightning, manual", "partial last window"): [4, 3],
    ("Fabric", "partial last window"): [4, 3],
    ("Accelerate", "partial last window"): [4, 4],
    ("Ignite", "partial last window"): [4, 3],
    ("Lightning, automatic", "fp16 and an overflow"): [6, 6],
    ("Accelerate", "fp16 and an overflow"): [6, 7],
    ("Lightning, manual", "2 ranks: partial last window"): [2, 1],
    ("Lightning, toggle_model", "2 ranks: partial last window"): [2, 2],
    ("Fabric", "2 ranks: partial last window"): [2, 1],
}


SIZES = Figures(1, 1, 1500, 1024, 1e-5, 1e-5, 1e-5, 1.00001, 1.0)


def table(tmp_path, *arguments):
    """What was printed, and the cells by framework and scenario."""
    done = run("frameworks.py", *arguments, "--output", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    cells = json.loads((tmp_path / "frameworks" / "1" / "frameworks.json").read_text())
    return done.stdout, {(c["framework"], c["scenario"]): c for c in cells}


def check(found):
    for (framework, scenario), c in found.items():
        expected = EVERYTHING[framework].get(scenario)
        assert c["identical"] == (expected is None), c
        places = expected if expected is ROUNDED else (expected,)
        assert expected is None or (c["where"], c["part"]) in places, c
        assert expected is not ROUNDED or c["figures"]["relative_norm"] < 1e-6, "another count is off by a percent"
        assert (c["apart"] == 0) == (framework == "Lightning, autograd"), c
    for place in RATIOS.keys() & found.keys():
        assert found[place]["figures"]["norm_ratio"] == pytest.approx(RATIOS[place], rel=1e-4)
    for place in STEPS.keys() & found.keys():
        assert found[place]["steps"] == STEPS[place]


def test_cells_of_three_rows_of_the_table_are_as_they_are_known_to_be(tmp_path):
    _, found = table(tmp_path, "--scenario", "K = 3,partial last window,2 ranks: K = 3")
    assert len(found) == 2 * len(FRAMEWORKS) + len(ON_RANKS)
    check(found)


@pytest.mark.slow
def test_every_cell_of_the_table_is_as_it_is_known_to_be(tmp_path):
    told, found = table(tmp_path)
    assert sorted(found) == sorted(CELLS)
    assert (RATIOS | STEPS).keys() <= found.keys()
    check(found)
    assert f"{47 + 39} of {88 + 72} cells are identical to the reference, bit for bit" in told
    assert list((tmp_path / "frameworks" / "1" / "the_answer").glob("events.*"))


def test_every_difference_has_a_cause_and_no_identical_cell_has_one():
    for framework, scenario in CELLS:
        assert bool(cause(framework, scenario)) == (scenario in EVERYTHING[framework]), (framework, scenario)
    places = [place for known in KNOWN for place in known.places]
    assert len(places) == len(set(places)) == 41 + 33
    assert set(places) <= set(CELLS)


def test_a_missing_package_and_a_refusal_are_reported(monkeypatch):
    def refuses(job):
        raise ValueError("not on\n a CPU")

    refused = loop_outcome(refuses, replace(SCENARIOS["K = 1"], microbatches=1))
    assert refused.refusal == "ValueError: not on a CPU"
    monkeypatch.setattr(watch, "find_spec", lambda package: None)
    missing = framework_outcome(FRAMEWORKS["Ignite"], SCENARIOS["K = 1"])
    assert missing == NOT_INSTALLED
    outcomes = {"K = 1": {"Ignite": missing, "Fabric": refused}}
    assert (cell(missing), cell(refused)) == ("not installed", "refuses")
    assert list(differences_of(outcomes)) == [
        "not installed: pip install 'gradparity[frameworks]'",
        "ValueError: not on a CPU",
    ]
    assert "| K = 1 | not<br>installed | refuses |" in difference_page(outcomes)
    assert unexplained(outcomes) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "keras"],
        ["--only", ""],
        ["--scenario", "fp8"],
        ["--scenario", "data in order", "--only", "ignite"],
        ["--output", __file__],
    ],
)
def test_bad_input_is_one_sentence(arguments, capsys):
    assert runpy.run_path(str(SCRIPT))["main"](arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert arguments[0] in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("mismatch", "words"),
    [
        (Mismatch(Part.OPTIMIZER, "group 0.lr", Kind.VALUE, "0.01", "0.005"), "lr ×0.5"),
        (Mismatch(Part.OPTIMIZER, "group 0.lr", Kind.VALUE, "0.0", "0.005"), "lr: value"),
        (Mismatch(Part.GRADIENTS, "w", Kind.PRESENCE, "a tensor", "None"), "gradients: presence"),
        (Mismatch(Part.LOSS, "loss", Kind.BITS, "", "", SIZES._replace(norm_ratio=2 / 3)), "loss ×0.667"),
        (Mismatch(Part.LOSS, "loss", Kind.BITS, "", "", SIZES._replace(norm_ratio=1.0009)), "loss ×1.0009"),
        (Mismatch(Part.LOSS, "loss", Kind.BITS, "", "", SIZES), "loss, 1,500 ULP"),
    ],
)
def test_the_size_of_a_difference_in_a_few_words(mismatch, words):
    assert size_in_words(mismatch) == words


def test_frameworks_and_scenarios_can_be_chosen(tmp_path, capsys):
    arguments = ["--only", "fab", "--scenario", "k = 3", "--output", str(tmp_path)]
    assert runpy.run_path(str(SCRIPT))["main"](arguments) == 0
    out = capsys.readouterr().out
    assert "1. Fabric, word for word: K = 3" in out
    assert "1 of 2 cells are identical to the reference" in out
    assert "2 ranks" not in out
    assert f"--logdir {tmp_path}/frameworks/1" in out
