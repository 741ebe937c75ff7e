"""The faults, by name."""

from gradparity.faults.fault import Fault
from gradparity.training import manual

NAIVE = Fault(
    name="naive",
    symptom="Parameters that enter only as a sum get each other's gradient a second time; nothing raises.",
    changes=manual,
    right="""
            p.grad = g if alone and fits(g, p) and storage_of(g) not in taken else copy_for(g, p)
""",
    wrong="""
            p.grad = g
""",
    sources=(
        "torch/csrc/autograd/functions/accumulate_grad.h",
        "https://github.com/pytorch/pytorch/issues/34082",
    ),
)

SUMMED_LOSS = Fault(
    name="summed-loss",
    symptom="None but memory: the sum is the same, rounded otherwise, and every graph lives to the last forward.",
    right="""
        run.route(run.scaler.scale(loss), run.parameters)
        yield Moment(Phase.ACCUMULATED, index)
""",
    wrong="""
        total = loss if index == 0 else total + loss
    run.route(run.scaler.scale(total), run.parameters)
    yield Moment(Phase.ACCUMULATED, index)
""",
)

CLIP_BEFORE_UNSCALE = Fault(
    name="clip-before-unscale",
    symptom="Every step is clipped, to 1/scale of the threshold; Adam hides most of it, SGD hardly moves.",
    right="""
    run.scaler.unscale_(run.optimizer)
    yield Moment(Phase.UNSCALED)
    run.clip(run.parameters)
""",
    wrong="""
    run.clip(run.parameters)
    run.scaler.unscale_(run.optimizer)
    yield Moment(Phase.UNSCALED)
""",
    sources=(
        "https://github.com/Lightning-AI/pytorch-lightning/issues/18089",
        "https://github.com/milesial/Pytorch-UNet/issues/468",
    ),
)

FAULTS = {fault.name: fault for fault in (NAIVE, SUMMED_LOSS, CLIP_BEFORE_UNSCALE)}
