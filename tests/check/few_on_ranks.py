"""A lookup among few faults, as each rank makes it; tests/faults covers all of them."""

from gradparity.check.lookup import fault_lookup_on_ranks
from gradparity.faults import FAULTS
from gradparity.faults.on_ranks import RANK_FAULTS

NAMES = (
    "clip-before-unscale",
    "exchanges-every-microbatch",
    "mean-of-rank-means",
    "naive",
    "ranks-start-apart",
    "unsynchronised",
    "unsynchronised-gradients",
)


def few():
    return {name: (RANK_FAULTS | FAULTS)[name] for name in NAMES}


def look_up(*given):
    fault_lookup_on_ranks.known_on_ranks = few
    return fault_lookup_on_ranks.look_up_on_ranks(*given)


def match_with_rounding(*given):
    fault_lookup_on_ranks.known_on_ranks = few
    return fault_lookup_on_ranks.match_with_rounding_on_ranks(*given)
