"""Scores of the multi-rank faults: each is observed on two ranks and looked up there."""

from collections.abc import Iterable, Mapping, Sequence

import torch.distributed as dist

from gradparity.check.lookup import Answer, first_shown, look_up
from gradparity.check.observe import Look, Observed, common_prefix
from gradparity.check.rank_lookup import in_a_row, known_on_ranks, watched_together
from gradparity.faults import Fault
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.processes.collective_guard import Together
from gradparity.processes.launch import launch
from gradparity.studies.peers.answers import CANNOT, Answers
from gradparity.studies.peers.scores import PRECISION, Score


def scores_on_ranks(names: Sequence[str], peers: Iterable[str] = ()) -> list[Score]:
    """Start two ranks and return the scores of the faults ``names`` on them. No peer can express these faults."""
    scores: list[Score] = launch(scored, 2, names, dict.fromkeys(peers, CANNOT), seconds=600)[0] if names else []
    return scores


def scored(names: Sequence[str], peers: Mapping[str, Answers]) -> list[Score]:
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
    return [score(RANK_FAULTS[name], on_ranks, reference, rows, peers) for name, on_ranks in of_each.items()]


def score(
    fault: Fault,
    seen: Sequence[Observed],
    reference: Sequence[Observed],
    rows: Mapping[str, Observed],
    peers: Mapping[str, Answers],
) -> Score:
    """Look up ``fault`` and return its score.

    ``seen`` and ``reference`` hold each rank's observation of ``fault`` and of the reference. ``rows`` holds the
    observations of every known fault, all ranks together.
    """
    first = min(range(len(seen)), key=lambda rank: common_prefix(reference[rank].looks, seen[rank].looks))
    loop = in_a_row([one.looks for one in seen], seen[first].trace)
    right = in_a_row([one.looks for one in reference], reference[first].trace)
    found = look_up(loop, right, lambda faults, _: rows[faults[0].name], known=known_on_ranks())
    return Score(
        fault,
        diverged=loop != right,
        named=found.answer == Answer.FAULT and fault in found.faults,
        same=tuple(other.name for other in found.faults if other != fault),
        first=first_shown(reference[first], seen[first]),
        peers=peers,
    )
