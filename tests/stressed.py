"""The reference and all faults as they were seen under the stress scenario, each observed once a process."""

from functools import cache

from gradparity.diagnosis.observe import Observed, observe_with
from gradparity.faults import FAULTS

PRECISION = "fp16"


@cache
def known(name: str | None) -> Observed:
    return observe_with([FAULTS[name]] if name else [], PRECISION)


def see(faults, expected):
    """As `observe_with`, but single faults are looked up."""
    if len(faults) == 1 and faults[0].name in FAULTS:
        return known(faults[0].name)
    return observe_with(faults, PRECISION, expected)
