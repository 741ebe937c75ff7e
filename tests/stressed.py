"""The reference and all faults as they were seen under the stress scenario, each observed once a process."""

from functools import cache

from gradparity.diagnosis.observe import Observed, observe_with
from gradparity.faults import FAULTS

PRECISION = "fp16"


@cache
def known(name: str | None, precision: str = PRECISION) -> Observed:
    return observe_with([FAULTS[name]] if name else [], precision)


def see(faults, expected, precision=PRECISION):
    """As `observe_with`, but single faults are looked up."""
    if len(faults) == 1 and faults[0].name in FAULTS:
        return known(faults[0].name, precision)
    return observe_with(faults, precision, expected)
