"""Any two values of any two axes, together in one cell: 0 ULP, and what the cell is about did happen."""

from functools import cache
from itertools import combinations, product

import pytest

from covering import quick_if_new
from gradparity.studies.matrix.cell import AXES, MatrixCell, full_cells, pairs_of, pairwise_cells, product_of, refusal
from gradparity.studies.matrix.run import CellOutcome, run_cell
from gradparity.studies.matrix.two_runs import STEPS_PER_CELL, task_of

CELLS = pairwise_cells()


def chosen_by(cell: MatrixCell) -> dict[str, object]:
    return {axis: getattr(cell, axis) for axis in AXES}


def test_two_values_that_never_meet_cannot_meet():
    met = set[frozenset]().union(*(pairs_of(chosen_by(cell)) for cell in CELLS))
    values = [(axis, value) for axis in AXES for value in AXES[axis]]
    apart = [dict(pair) for pair in combinations(values, 2) if frozenset(pair) not in met]
    apart = [pair for pair in apart if len(pair) == 2]
    assert len(met) > 1000
    assert len(apart) > 50
    for pair in apart:
        for others in product(*(AXES[axis] for axis in AXES if axis not in pair)):
            rest = dict(zip((axis for axis in AXES if axis not in pair), others, strict=True))
            assert refusal(MatrixCell(**pair, **rest)) is not None, (pair, rest)


def test_no_cell_of_the_covering_array_is_refused_or_repeated():
    assert all(refusal(cell) is None for cell in CELLS)
    assert len(set(CELLS)) == len(CELLS) < 450


def test_the_full_product_has_thousands_of_cells_and_every_value_of_every_axis():
    cells = full_cells()
    assert len(set(cells)) == len(cells) > 9000
    assert sum(refusal(cell) is None for cell in cells) > 8000
    for axis, values in AXES.items():
        assert {getattr(cell, axis) for cell in cells if refusal(cell) is None} >= set(values) - {"reentrant"}


def test_every_axis_has_a_default_that_can_train_the_task():
    assert [refusal(cell) for cell in product_of(task=("sparse", "digits_mlp"))] == [None, None]


@cache
def trained_parameters(task: str) -> int:
    parameters = dict(task_of(task).build().named_parameters())
    parameters.pop("unused", None)
    return sum(p.requires_grad for p in parameters.values())


def takes_its_time(cell: MatrixCell) -> bool:
    """A compiler does; tests/studies/matrix/test_cells.py has one such cell that is quick."""
    return cell.task == "compiled"


@pytest.mark.parametrize("cell", quick_if_new(CELLS, lambda cell: chosen_by(cell).items(), takes_its_time), ids=str)
def test_both_routes_are_one_training(cell):
    result = run_cell(cell)
    if result.outcome == CellOutcome.REFUSED:
        pytest.skip(result.why)
    assert (result.outcome, result.why, result.max_ulp) == (CellOutcome.IDENTICAL, "", 0)
    assert result.moved == trained_parameters(cell.task)
    assert result.skipped == ((3,) if cell.precision == "fp16" and cell.clip != "error_if_nonfinite" else ())
    assert result.clipped == (0 if cell.clip == "none" else STEPS_PER_CELL - len(result.skipped))
    assert result.rates >= STEPS_PER_CELL - len(result.skipped) - (cell.schedule == "plateau")
