"""The divergence map shows what was found, where it was found, and nothing as identical that was not compared."""

import numpy as np
import pytest
import torch

from gradparity.faults import FAULTS
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.lockstep import Comparison
from gradparity.parity.mismatches import Mismatch, figures_of
from gradparity.parity.place_in_training import END, START, Place
from gradparity.parity.state import Part
from gradparity.parity.verdict import Verdict
from gradparity.tensorboard import first_difference, map_picture
from gradparity.tensorboard.divergence_map import _OTHERS, COLUMNS, IDENTICAL, NOT_IN_BITS, DivergenceMap
from gradparity.training import Phase
from small import comparisons, small_config, small_lanes

A, B = "first.weight", "second.bias"


def comparison(step, phase=Phase.CLIPPED, mismatches=(), checked=(Part.GRADIENTS,)):
    return at(Place(step, None, phase), mismatches, checked)


def at(place, mismatches=(), checked=(Part.PARAMETERS,)):
    return Comparison(place, None, None, dict.fromkeys(checked, 2), 2, list(mismatches), {}, 1.0)


def mismatch(name, ulp=None, part=Part.GRADIENTS):
    if ulp is None:
        return Mismatch(part, name, Kind.PRESENCE, "None", "a tensor")
    one = torch.tensor([1.0])
    other = (one.view(torch.int32) + ulp).view(torch.float32)
    return Mismatch(part, name, Kind.BITS, "1", "2", figures_of([(one, other)]))


def spread_of(*found):
    spread = DivergenceMap([A, B])
    for each in found:
        spread.add(each)
    return spread


def test_identical_different_and_uncompared_are_three_things():
    spread = spread_of(comparison(0), comparison(1, mismatches=[mismatch(B, 8)]), comparison(2, Phase.UNSCALED))
    assert spread.rows == [A, B]
    np.testing.assert_array_equal(spread.map(Phase.CLIPPED), [[0, 0, np.nan], [0, 8, np.nan]])
    np.testing.assert_array_equal(spread.map(Phase.UNSCALED), [[np.nan, np.nan, 0]] * 2)
    assert np.isnan(spread.map(Phase.FORWARD)).all()
    assert spread.first == (Phase.CLIPPED, B, 1)


def test_a_difference_that_is_not_of_bits_has_no_ulp():
    assert spread_of(comparison(0, mismatches=[mismatch(A)])).map(Phase.CLIPPED)[0, 0] == NOT_IN_BITS


def test_the_largest_of_several_microbatches_is_kept():
    found = [comparison(0, mismatches=[mismatch(A, ulp)]) for ulp in (3, 5, 1)]
    assert spread_of(*found).map(Phase.CLIPPED)[0, 0] == 5


def test_shared_memory_counts_for_the_parameter_whose_gradient_it_is():
    shared = Mismatch(Part.ALIASING, f"{B}.grad", Kind.VALUE, "own", f"memory of {A}.grad")
    spread = spread_of(comparison(0, Phase.ACCUMULATED, [shared]))
    np.testing.assert_array_equal(spread.map(Phase.ACCUMULATED), [[IDENTICAL], [NOT_IN_BITS]])


def test_after_a_step_the_row_shows_the_parameter_and_not_its_gradient():
    found = [mismatch(A, 9), mismatch(B, 2, Part.PARAMETERS), mismatch(f"{A}.exp_avg", 4, Part.OPTIMIZER)]
    spread = spread_of(comparison(0, Phase.STEPPED, found, (Part.GRADIENTS, Part.PARAMETERS, Part.OPTIMIZER)))
    assert spread.rows == [A, B, _OTHERS[Part.OPTIMIZER]]
    np.testing.assert_array_equal(spread.map(Phase.STEPPED), [[0], [2], [4]])


def test_comparisons_outside_of_steps_are_in_the_first_and_the_last_column():
    steps = [at(Place(step, None, Phase.STEPPED)) for step in (0, 1)]
    before, after = (mismatch(name, ulp, Part.PARAMETERS) for name, ulp in ((A, 1), (B, 2)))
    spread = spread_of(at(START, [before]), *steps, at(END, [after]))
    np.testing.assert_array_equal(spread.map(Phase.STEPPED), [[1, 0], [0, 2]])
    assert spread.first == (Phase.STEPPED, A, 0)


def test_a_long_run_gathers_steps_and_loses_no_difference():
    steps = 5 * COLUMNS
    found = (comparison(step, mismatches=[mismatch(A, 7)] if step == 301 else []) for step in range(steps))
    spread = spread_of(*found)
    assert spread.stride == 8
    assert spread.columns == steps // 8
    (row,), (column,) = np.nonzero(spread.map(Phase.CLIPPED) == 7)
    assert (row, column) == (0, 301 // 8)
    assert np.count_nonzero(spread.map(Phase.CLIPPED)) == 1


def test_zero_and_differences_without_ulp_have_their_own_colors():
    found = np.array([[IDENTICAL, 1, 10, 1e10, NOT_IN_BITS, np.nan]])
    colors = map_picture._colored(found, (1, 1e10))[0]
    assert len({tuple(color) for color in colors}) == 6
    scale = map_picture.DISTANCES(np.linspace(0, 1, 256))[:, :3]
    for special in (colors[0], colors[4]):
        assert np.abs(scale - special[:3]).sum(axis=1).min() > 0.3
    assert colors[5][3] == 0, "not compared: the hatched ground is seen through"


def test_rows_of_a_picture_are_the_parameters_in_the_order_of_the_network():
    config = small_config(task="digits_mlp")
    names = [name for name, _ in small_lanes(config)[0].run.model.named_parameters()]
    spread = DivergenceMap(names)
    for found in comparisons(config):
        spread.add(found)
    (axes, *_) = map_picture.draw_phase(spread, Phase.STEPPED, "mlp").axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*names, "loss", "optimizer", "scheduler", "random numbers"]


@pytest.mark.parametrize("found", [[comparison(0)], [comparison(0, mismatches=[mismatch(A, 3)])]])
def test_the_ring_is_drawn_where_the_first_difference_is(found):
    panels = map_picture.draw_overview(spread_of(*found), "a sentence").axes[: len(Phase)]
    ringed = [
        phase for phase, axes in zip(Phase, panels, strict=True) if any(line.get_marker() == "o" for line in axes.lines)
    ]
    assert ringed == ([Phase.CLIPPED] if found[0].mismatches else [])


@pytest.mark.parametrize("name", FAULTS)
def test_the_page_of_a_fault_shows_the_lines_that_fix_it(name):
    verdict = Verdict()
    verdict.add(comparison(0, mismatches=[mismatch(A, 3)]))
    page = first_difference.first_difference_page(verdict, name)
    added = {line[1:] for line in page.splitlines() if line.startswith("+ ")}
    removed = {line[1:] for line in page.splitlines() if line.startswith("- ")}
    patches = [line for patch in FAULTS[name].changes.values() for line in patch.splitlines()]
    assert added | removed
    assert added <= {line[1:] for line in patches if line.startswith("-")}
    assert removed <= {line[1:] for line in patches if line.startswith("+")}
    assert "At step 0, phase clipped" in page
    assert "3 ULP apart" in page
    assert "The fix" not in first_difference.first_difference_page(verdict, "manual")


def test_the_card_of_parity_says_so():
    verdict = Verdict()
    verdict.add(comparison(0, Phase.STEPPED))
    assert "No difference" in first_difference.first_difference_page(verdict, "manual")
    assert first_difference.first_difference_sentence(verdict).startswith("identical, bit for bit: 1 step,")
