"""A lookup among few faults, as each rank makes it: what the dictionary holds has a test of its own, in tests/distributed."""

from gradparity.diagnosis import lookup_on_ranks
from gradparity.distributed.faults import RANK_FAULTS
from gradparity.faults import FAULTS

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
    lookup_on_ranks.known_on_ranks = few
    return lookup_on_ranks.look_up_on_ranks(*given)


def like_which(*given):
    lookup_on_ranks.known_on_ranks = few
    return lookup_on_ranks.like_which_on_ranks(*given)
