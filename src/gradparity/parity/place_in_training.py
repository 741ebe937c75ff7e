"""The places in a training at which two runs are compared."""

import math
from dataclasses import dataclass
from functools import total_ordering
from typing import Final

from gradparity.training import Moment, Phase


@total_ordering
@dataclass(frozen=True)
class Place:
    """A phase of one optimizer step. Places are ordered as a training reaches them.

    >>> Place(1, 2, Phase.FORWARD) < Place(1, 2, Phase.ACCUMULATED) < Place(1, None, Phase.CLIPPED) < END
    True
    >>> print(Place(4, 1, Phase.ACCUMULATED), Place(4, None, Phase.STEPPED), END, sep="; ")
    step 4, microbatch 1, accumulated; step 4, stepped; the end
    """

    step: int
    microbatch: int | None
    """Its index in the step; ``None`` for a phase of the whole step."""
    phase: Phase

    @classmethod
    def of(cls, step: int, moment: Moment) -> "Place":
        """Return the place of a moment in ``step``."""
        return cls(step, moment.microbatch, moment.phase)

    @property
    def in_a_step(self) -> bool:
        """Return whether this is a phase of a step: neither :data:`START` nor :data:`END`."""
        return self.step >= 0

    def _key(self) -> tuple[float, float, Phase]:
        step = math.inf if self == END else self.step
        return step, math.inf if self.microbatch is None else self.microbatch, self.phase

    def __lt__(self, other: "Place") -> bool:
        return self._key() < other._key()

    def __str__(self) -> str:
        if not self.in_a_step:
            return "before the first step" if self == START else "the end"
        microbatch = "" if self.microbatch is None else f", microbatch {self.microbatch}"
        return f"step {self.step}{microbatch}, {self.phase.name.lower()}"


START: Final = Place(-1, None, Phase.STEPPED)
"""The place before the first step: runs that start from different states make different updates."""

END: Final = Place(-2, None, Phase.STEPPED)
"""The place after the last step, if anything is compared there. The number is what JSON and TensorBoard's files say."""
