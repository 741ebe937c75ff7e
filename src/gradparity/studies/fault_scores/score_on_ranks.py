"""Scores of the multi-rank faults: each is observed on two ranks and looked up there."""

from collections.abc import Mapping, Sequence

import torch.distributed as dist

from gradparity.check.lookup import first_shown, look_up
from gradparity.check.observe import Look, Observed, common_prefix
from gradparity.check.rank_lookup import in_a_row, known_on_ranks, watched_together
from gradparity.faults import Fault
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.processes.collective_guard import Together
from gradparity.processes.launch import launch
from gradparity.studies.fault_scores.score import PRECISION, Score, score_of


def scores_on_ranks(names: Sequence[str]) -> list[Score]:
    """Start two ranks and return the scores of the faults ``names`` on them."""
    scores: list[Score] = launch(scores_of_this_rank, 2, names, seconds=600)[0] if names else []
    return scores


def scores_of_this_rank(names: Sequence[str]) -> list[Score]:
    """Score the faults ``names``; call on every rank.

    Every other fault is observed for as long as it behaves like one of these.
    """
    ranks = Together()
    watch = watched_together(ranks)

    def seen(*faults: Fault) -> list[Observed]:
        return ranks.gathered(watch(faults, PRECISION, lambda records, looks: True))

    reference = seen()
    of_each = {name: seen(RANK_FAULTS[name]) for name in names}
    mine = [on_ranks[dist.get_rank()].looks for on_ranks in of_each.values()]

    def like_one(_: object, looks: Sequence[Look]) -> bool:
        return any(looks == one[: len(looks)] for one in mine)

    rows = {name: in_a_row([one.looks for one in on_ranks]) for name, on_ranks in of_each.items()}
    for name, fault in known_on_ranks().items():
        if name not in rows:
            rows[name] = in_a_row(ranks.gathered(watch([fault], PRECISION, like_one).looks))
    return [_score(RANK_FAULTS[name], on_ranks, reference, rows) for name, on_ranks in of_each.items()]


def _score(
    fault: Fault, seen: Sequence[Observed], reference: Sequence[Observed], rows: Mapping[str, Observed]
) -> Score:
    """Look up ``fault`` and return its score.

    ``seen`` and ``reference`` hold each rank's observation of ``fault`` and of the reference. ``rows`` holds the
    observations of every known fault, all ranks together.
    """
    first = min(range(len(seen)), key=lambda rank: common_prefix(reference[rank].looks, seen[rank].looks))
    loop = in_a_row([one.looks for one in seen], seen[first].trace)
    right = in_a_row([one.looks for one in reference], reference[first].trace)
    found = look_up(loop, right, lambda faults, _: rows[faults[0].name], known=known_on_ranks())
    return score_of(fault, found, diverged=loop != right, first=first_shown(reference[first], seen[first]))
