"""Scores of the multi-rank faults: each is observed on two ranks and looked up there."""

from collections.abc import Mapping, Sequence

import torch.distributed as dist

from gradparity.check.lookup.fault_lookup import first_shown, look_up
from gradparity.check.lookup.fault_lookup_on_ranks import guarded_reference, known_on_ranks, merge_ranks
from gradparity.check.lookup.seen_runs import SeenRun
from gradparity.check.running.observe import Observation, ObservedLoop, common_prefix
from gradparity.faults import Fault
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.processes.collective_guard import CollectiveGuard
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
    ranks = CollectiveGuard()
    watch = guarded_reference(ranks)

    def seen(*faults: Fault) -> list[ObservedLoop]:
        return ranks.gather(watch(faults, PRECISION, lambda records, observations: True))

    reference = seen()
    of_each = {name: seen(RANK_FAULTS[name]) for name in names}
    mine = [on_ranks[dist.get_rank()].observations for on_ranks in of_each.values()]

    def like_one(_: object, observations: Sequence[Observation]) -> bool:
        return any(observations == one[: len(observations)] for one in mine)

    rows = {name: merge_ranks([one.observations for one in on_ranks]) for name, on_ranks in of_each.items()}
    for name, fault in known_on_ranks().items():
        if name not in rows:
            rows[name] = merge_ranks(ranks.gather(watch([fault], PRECISION, like_one).observations))
    memory: dict[str, SeenRun] = {}
    return [_score(RANK_FAULTS[name], on_ranks, reference, rows, memory) for name, on_ranks in of_each.items()]


def _score(
    fault: Fault,
    seen: Sequence[ObservedLoop],
    reference: Sequence[ObservedLoop],
    rows: Mapping[str, ObservedLoop],
    memory: dict[str, SeenRun],
) -> Score:
    """Look up ``fault`` and return its score.

    ``seen`` and ``reference`` hold each rank's observation of ``fault`` and of the reference. ``rows`` holds the
    observations of every known fault, all ranks together; ``memory`` is for all lookups.
    """
    first = min(range(len(seen)), key=lambda rank: common_prefix(reference[rank].observations, seen[rank].observations))
    loop = merge_ranks([one.observations for one in seen], seen[first].trace)
    right = merge_ranks([one.observations for one in reference], reference[first].trace)
    found = look_up(loop, right, lambda faults, _: rows[faults[0].name], known=known_on_ranks(), memory=memory)
    return score_of(fault, found, diverged=loop != right, first=first_shown(reference[first], seen[first]))
