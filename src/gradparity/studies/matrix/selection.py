"""Command-line options that choose cells of the matrix."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import get_args

from gradparity.cli.arguments import check_range
from gradparity.cli.choose_by_name import add_choice, choose
from gradparity.errors import UserError
from gradparity.processes.determinism import Device, prepare_device
from gradparity.studies.matrix.cell import AXES, MatrixCell, full_cells, pairwise_cells, product_of
from gradparity.studies.train_two_ways.config import CandidateName

MOST_PROCESSES = 256
"""The most processes that can be asked for."""

EXPLAINED = """\
Without an axis: a few hundred cells in which any two values of two axes meet. With some: every combination of what they
name, and a default for the others."""


def add_options(parser: ArgumentParser) -> None:
    """Add an option for each axis, and options for all cells, the candidate, the device and the processes."""
    parser.epilog = EXPLAINED
    for axis in AXES:
        add_choice(parser, f"--{axis}", f"all, {', '.join(map(str, AXES[axis]))}")
    parser.add_argument(
        "--full", action="store_true", help="thousands of cells, or those of them with the named values"
    )
    parser.add_argument(
        "--candidate", choices=get_args(CandidateName), default="manual", help="compared with .backward()"
    )
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help="where both ways are trained")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one for each core")


def cells_chosen(given: Namespace) -> list[MatrixCell]:
    """Return the cells that the options name.

    Raises:
        UserError: if they name no cell, or a value that does not exist.
    """
    wanted = {axis: _values(axis, getattr(given, axis)) for axis in AXES if getattr(given, axis) is not None}
    prepare_device(given.device)
    check_range("--processes", given.processes, 1, MOST_PROCESSES)
    if not wanted:
        return full_cells() if given.full else pairwise_cells()
    if not given.full:
        return list(product_of(**wanted))
    cells = [cell for cell in full_cells() if all(getattr(cell, axis) in some for axis, some in wanted.items())]
    if not cells:
        raise UserError("--full holds no such cell; leave --full out to get every combination of what you name")
    return cells


def _values(axis: str, texts: Sequence[str]) -> tuple[object, ...]:
    by_name = {str(value): value for value in AXES[axis]}
    names = choose(f"--{axis}", None if texts == ["all"] else texts, by_name, known=f"all, {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)
