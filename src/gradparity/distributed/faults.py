"""Wrong loops that look right on one rank, each a change of a few lines to a step of :mod:`gradparity.distributed`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradparity.distributed.parity import RankStep
from gradparity.distributed.step import ddp_step, manual_step
from gradparity.faults.rewritten import rewritten
from gradparity.training import manual


@dataclass(frozen=True)
class RankFault:
    """Lines of a step, and what stands in their place in a loop that is wrong on several ranks."""

    name: str
    symptom: str
    """What somebody who trains with it would notice, if anything."""
    changes: Callable[..., Any]
    """The step that holds ``right``."""
    right: str
    wrong: str
    sources: tuple[str, ...] = ()
    """Where it happened."""


UNSYNCHRONISED = RankFault(
    name="unsynchronised",
    symptom="Each rank trains a model of its own, and only that of rank 0 is saved. Nothing raises.",
    changes=ddp_step,
    right="""
            run.route(run.scaler.scale(loss), run.parameters)
""",
    wrong="""
            manual(run.scaler.scale(loss), run.parameters)
""",
    sources=('torch/nn/parallel/distributed.py: "This module doesn\'t work with torch.autograd.grad"',),
)

NO_SYNC_AROUND_BACKWARD = RankFault(
    name="no-sync-around-backward",
    symptom="Every microbatch is exchanged: K times the traffic, and ranks with fewer microbatches hang.",
    changes=ddp_step,
    right="""
        with nullcontext() if last else run.wrapped.no_sync():
            with run.autocast():
                loss = run.loss(run.wrapped, microbatch) / share_of_total
            yield Moment(Phase.FORWARD, index, loss.detach())
            run.route(""",
    wrong="""
        with run.autocast():
            loss = run.loss(run.wrapped, microbatch) / share_of_total
        yield Moment(Phase.FORWARD, index, loss.detach())
        with nullcontext() if last else run.wrapped.no_sync():
            run.route(""",
    sources=(
        "https://github.com/facebookresearch/ClassyVision/pull/706",
        "https://github.com/huggingface/accelerate/pull/1726",
        "https://github.com/speechbrain/speechbrain/issues/1802",
    ),
)

MEAN_OF_RANK_MEANS = RankFault(
    name="mean-of-rank-means",
    symptom="A token on a rank with few tokens weighs more than one on a rank with many; worst with padding.",
    changes=ddp_step,
    right="total(window.normalizer) / dist.get_world_size()",
    wrong="window.normalizer",
    sources=("https://github.com/huggingface/transformers/pull/34191",),
)

AVERAGED_TWICE = RankFault(
    name="averaged-twice",
    symptom="Gradients shrink with the number of ranks; Adam hides it, clipping and SGD do not.",
    changes=ddp_step,
    right="total(window.normalizer) / dist.get_world_size()",
    wrong="total(window.normalizer)",
)

SCALE_OF_EACH_RANK = RankFault(
    name="scale-of-each-rank",
    symptom="An overflow on one rank is skipped there, and stepped with NaN by all others; their scales part.",
    changes=manual_step,
    right="""
        if last:
            average(run.parameters, run.averaging)
        yield Moment(Phase.ACCUMULATED, index)
    run.scaler.unscale_(run.optimizer)
""",
    wrong="""
        yield Moment(Phase.ACCUMULATED, index)
    run.scaler.unscale_(run.optimizer)
    average(run.parameters, run.averaging)
""",
)

LOCAL_CLIP = RankFault(
    name="local-clip",
    symptom="Ranks with large gradients, which may be the ones to learn from, are each cut to the threshold.",
    changes=manual_step,
    right="""
            average(run.parameters, run.averaging)
""",
    wrong="""
            run.clip(run.parameters)
            average(run.parameters, run.averaging)
""",
)

OWN_BUFFERS = RankFault(
    name="own-buffers",
    symptom="BatchNorm's running statistics are each rank's own: what is evaluated depends on the rank.",
    changes=manual_step,
    right="""
    share(run.model.buffers())
""",
    wrong="""
""",
)

RANK_FAULTS = {
    fault.name: fault
    for fault in (
        UNSYNCHRONISED,
        NO_SYNC_AROUND_BACKWARD,
        MEAN_OF_RANK_MEANS,
        AVERAGED_TWICE,
        SCALE_OF_EACH_RANK,
        LOCAL_CLIP,
        OWN_BUFFERS,
    )
}
"""By name."""


def step_with(fault: RankFault) -> RankStep:
    """``ddp_step`` or ``manual_step`` with ``fault``."""
    return rewritten(fault.changes, fault.right, fault.wrong, manual=manual)
