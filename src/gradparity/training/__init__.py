"""The training step to copy: short, plain PyTorch, which needs torch alone.

Read in this order: ``windows`` (the microbatches of one optimizer step), ``routes`` (how a gradient reaches
``p.grad``), ``precision``, ``clipping``, ``optimizers``, ``phases``, ``step`` (where they meet), then ``loop`` and
``checkpoint`` around it. ``frugal_route`` is the manual route in less memory. ``distributed`` is the step on several
ranks, with DDP and by hand; ``sharded`` is what FSDP2 leaves of it. Seldom needed: ``unsupported`` (what the manual
routes cannot do), ``exact_restore`` and ``random_numbers`` (state that is easily lost), ``collectives`` (sums between
ranks).
"""

from gradparity.training.checkpoint import resume, save
from gradparity.training.clipping import Clip, clip_by_norm, clip_by_value, in_order_of, no_clip
from gradparity.training.frugal_route import frugal
from gradparity.training.loop import train, validate
from gradparity.training.optimizers import adamw, sgd_momentum, warmup_cosine
from gradparity.training.phases import Moment, Phase
from gradparity.training.precision import PRECISIONS, Precision
from gradparity.training.routes import Route, backward, manual
from gradparity.training.step import Run, take_step, train_step
from gradparity.training.windows import Window, windows

__all__ = [
    "PRECISIONS",
    "Clip",
    "Moment",
    "Phase",
    "Precision",
    "Route",
    "Run",
    "Window",
    "adamw",
    "backward",
    "clip_by_norm",
    "clip_by_value",
    "frugal",
    "in_order_of",
    "manual",
    "no_clip",
    "resume",
    "save",
    "sgd_momentum",
    "take_step",
    "train",
    "train_step",
    "validate",
    "warmup_cosine",
    "windows",
]
