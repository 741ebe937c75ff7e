"""The data of the divergence map: where a difference is, and how it spreads."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gradparity.parity.difference_kinds import Kind
from gradparity.parity.lockstep import Comparison
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import END, Place
from gradparity.parity.state import Part
from gradparity.training import Phase

COLUMNS = 120
"""The largest number of columns; in a longer run, each column holds several steps."""

_OTHERS = {
    Part.LOSS: "loss",
    Part.BUFFERS: "buffers",
    Part.OPTIMIZER: "optimizer",
    Part.SCALER: "loss scaler",
    Part.SCHEDULER: "scheduler",
    Part.RNG: "random numbers",
    Part.EXTRA: "extra state",
}
"""Rows beneath the parameters, for values that belong to no parameter."""

IDENTICAL = 0.0
NOT_COMPARED = math.nan
NOT_IN_BITS = math.inf
"""The value differs in its memory, presence, dtype, shape or value, or by an unknown number of ULP."""


class DivergenceMap:
    """The largest distance in ULP by phase, row and step, gathered as comparisons are made.

    The rows are the parameters in the order of the network, then :data:`_OTHERS`. A parameter's row shows its gradient,
    and at ``STEPPED`` the parameter itself. Shared memory counts in the row of the parameter whose gradient it holds.
    """

    def __init__(self, parameters: Sequence[str]) -> None:
        self.parameters = tuple(parameters)
        self._names = (*parameters, *_OTHERS.values())
        self.stride = 1
        """Number of steps in a column."""
        self.columns = 0
        self.first: tuple[Phase, str, int] | None = None
        """Phase, row and step of the first difference."""
        self._row = {name: index for index, name in enumerate(self._names)}
        self._ulp = np.full((len(Phase), len(self._names), COLUMNS), NOT_COMPARED)

    def add(self, found: Comparison) -> None:
        """Add one comparison; one before the first step counts for the first, one after the last step for the last."""
        column = self._column(found.place)
        for part, count in found.checked.items():
            if count:
                self._raise(found.place.phase, self._rows_of(found.place.phase, part), column, IDENTICAL)
        for mismatch in found.mismatches:
            if (found.place.phase, mismatch.part) == (Phase.STEPPED, Part.GRADIENTS):
                continue  # the row shows the parameter here; the earlier phases showed the gradient
            rows = self._rows_with(found.place.phase, mismatch)
            self._raise(found.place.phase, rows, column, _ulp(mismatch))
            if rows and self.first is None:
                self.first = found.place.phase, self._names[rows[0]], max(found.place.step, 0)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with a tensor in place of the array: a checkpoint holds tensors, but no arrays."""
        return {**vars(self), "_ulp": torch.from_numpy(self._ulp)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, _ulp=state["_ulp"].numpy())

    @property
    def rows(self) -> list[str]:
        """Return the parameters, and those of :data:`_OTHERS` that were ever compared."""
        return [name for name, shown in zip(self._names, self._shown, strict=True) if shown]

    def map(self, phase: Phase) -> npt.NDArray[np.float64]:
        """Return ULP by row and column, ``[rows, columns]``, or one of the three values without ULP."""
        return self._ulp[phase, self._shown, : self.columns]

    @property
    def _shown(self) -> npt.NDArray[np.bool_]:
        compared: npt.NDArray[np.bool_] = ~np.isnan(self._ulp).all(axis=(0, 2))
        compared[: len(self.parameters)] = True
        return compared

    def _column(self, place: Place) -> int:
        if place == END:
            return max(self.columns - 1, 0)
        while (column := max(place.step, 0) // self.stride) >= COLUMNS:
            gathered = np.fmax(self._ulp[:, :, ::2], self._ulp[:, :, 1::2])
            self._ulp = np.concatenate([gathered, np.full_like(gathered, NOT_COMPARED)], axis=2)
            self.stride *= 2
        self.columns = column + 1
        return column

    def _raise(self, phase: Phase, rows: Sequence[int], column: int, distance: float) -> None:
        cells = self._ulp[phase, :, column]
        cells[rows] = np.fmax(cells[rows], distance)

    def _rows_of(self, phase: Phase, part: Part) -> list[int]:
        if part in _OTHERS:
            return [self._row[_OTHERS[part]]]
        shown = Part.PARAMETERS if phase == Phase.STEPPED else Part.GRADIENTS
        return list(range(len(self.parameters))) if part == shown else []

    def _rows_with(self, phase: Phase, mismatch: Mismatch) -> list[int]:
        name = mismatch.name.removesuffix(".grad") if mismatch.part == Part.ALIASING else mismatch.name
        named = self._row.get(name)
        return self._rows_of(phase, mismatch.part) if named is None or mismatch.part in _OTHERS else [named]


def _ulp(mismatch: Mismatch) -> float:
    """Return the distance in ULP as the map shows it; :data:`NOT_IN_BITS` if there is none."""
    return float(mismatch.figures.max_ulp) if mismatch.kind == Kind.BITS and mismatch.figures else NOT_IN_BITS
