"""A lookup among few faults, as each rank makes it; tests/faults covers all of them."""

from gradparity.check import rank_lookup
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
    rank_lookup.known_on_ranks = few
    return rank_lookup.look_up_on_ranks(*given)


def match_with_rounding(*given):
    rank_lookup.known_on_ranks = few
    return rank_lookup.match_with_rounding_on_ranks(*given)
