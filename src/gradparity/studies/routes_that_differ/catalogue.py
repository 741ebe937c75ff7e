"""The variants: each a loop on a model, with the loop it should match, until which place, and why."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.studies.routes_that_differ.branching import digits_branching
from gradparity.studies.routes_that_differ.loops import (
    DIVIDED_AFTER,
    FULL_BATCH,
    FUNC_GRAD,
    FUSED_ADAMW,
    REFERENCE_LOOP,
    REVERSED,
    SUMMED,
    ZEROS_FOR_NONE,
    VariantLoop,
)
from gradparity.studies.routes_that_differ.parameter_uses import USE_BY_USE
from gradparity.studies.routes_that_differ.predicted_places import (
    end_of_step_of,
    fused_rounding,
    inexact_roots,
    no_power_of_two,
    nowhere,
    three_microbatches,
    two_microbatches,
    unused,
    unused_at_first,
    used_twice,
)
from gradparity.studies.routes_that_differ.sqrt_rounding import EXACT_ROOTS
from gradparity.studies.tasks import Task
from gradparity.studies.tasks.digits import digits_mlp
from gradparity.studies.tasks.text import CharTransformer, text_transformer
from gradparity.studies.train_two_ways.config import Config, ScalerConfig


@dataclass(frozen=True)
class Prediction:
    """A prediction: the same bits as the loop ``like`` at every phase, until a place."""

    like: VariantLoop
    until: Callable[[Config, Task], Place | None] = nowhere
    """Computes, without training, the place of the first difference; ``None`` if no difference is predicted."""
    part: Part | None = None
    """The part of the state that the prediction covers; ``None``: all of it."""
    config: Config | None = None
    """The configuration of ``like``, if it differs from the variant's."""


@dataclass(frozen=True)
class Variant:
    """One way to compute the update, on one model."""

    name: str
    loop: VariantLoop
    task: Callable[[], Task]
    config: Config
    predictions: tuple[Prediction, ...]
    why: str
    """The reason for the predictions, in a few sentences that a reader can check."""


def tiny_transformer() -> Task:
    """Return the character transformer with one layer of width 16; every parameter has a multiple of 16 elements."""
    return replace(text_transformer(), build=partial(CharTransformer, width=16, heads=2, layers=1))


THREE = Config(accumulation_steps=3, steps=200)
TWO = replace(THREE, accumulation_steps=2)
FOUR = replace(THREE, accumulation_steps=4)
TEXT = replace(TWO, microbatch_size=4)
UNSCALED = replace(FOUR, precision="fp16", scaler=ScalerConfig(init_scale=1.0))
SCALED = replace(UNSCALED, scaler=ScalerConfig(init_scale=4.0 * UNSCALED.microbatch_size))

VARIANTS = (
    Variant(
        "summed loss",
        SUMMED,
        digits_mlp,
        THREE,
        (Prediction(REVERSED, used_twice),),
        "Autograd walks the graph from its newest node to its oldest, so the last microbatch's gradient arrives first. "
        "The terms are those of accumulation, added in the opposite order; of two terms the order does not matter.",
    ),
    Variant(
        "summed loss, tied",
        SUMMED,
        tiny_transformer,
        TEXT,
        (Prediction(REVERSED, used_twice), Prediction(USE_BY_USE)),
        "A weight used twice gets two terms from each microbatch. Accumulation adds those two first and then the "
        "microbatches, (h0 + e0) + (h1 + e1); one graph adds them as they arrive, ((h1 + e1) + h0) + e0.",
    ),
    Variant(
        "divided after, K = 4",
        DIVIDED_AFTER,
        digits_mlp,
        FOUR,
        (Prediction(REFERENCE_LOOP, no_power_of_two),),
        "Dividing by a power of two changes the exponent and rounds nothing, so it may as well be done after the "
        "additions. The divisor is the window's sample count: 4 x 32, until an epoch ends with 29.",
    ),
    Variant(
        "divided after, K = 3",
        DIVIDED_AFTER,
        digits_mlp,
        THREE,
        (Prediction(REFERENCE_LOOP, no_power_of_two),),
        "Dividing by 3 x 32 rounds: the sum of three rounded quotients differs from the rounded quotient of "
        "their sum. With mean losses and a division by K, the same holds for K.",
    ),
    Variant(
        "divided after, fp16",
        DIVIDED_AFTER,
        digits_mlp,
        UNSCALED,
        (
            Prediction(
                replace(REFERENCE_LOOP, name="loss scale 128"), end_of_step_of(no_power_of_two), Part.PARAMETERS, SCALED
            ),
        ),
        "Dividing by a power of two does round where the quotient underflows, as gradients in fp16 do without a loss "
        "scale. Divided last, they travel 128 times as large: it is a loss scale of 128, bit for bit.",
    ),
    Variant(
        "reversed order, K = 2",
        REVERSED,
        digits_mlp,
        TWO,
        (Prediction(REFERENCE_LOOP, three_microbatches),),
        "a + b is b + a, in floating point too.",
    ),
    Variant(
        "reversed order, K = 3",
        REVERSED,
        digits_mlp,
        THREE,
        (Prediction(REFERENCE_LOOP, three_microbatches),),
        "(a + b) + c rounds a + b; (c + b) + a rounds c + b. By the first row, these are the bits of the summed loss.",
    ),
    Variant(
        "zeros for None",
        ZEROS_FOR_NONE,
        digits_branching,
        THREE,
        (
            Prediction(REFERENCE_LOOP, unused_at_first),
            Prediction(REFERENCE_LOOP, end_of_step_of(unused), Part.PARAMETERS),
        ),
        "A parameter without gradient is left alone; one with a zero gradient decays, is moved by its momentum, and "
        "its step is counted. Where a later microbatch of the window reaches it, 0 + g is g, and nothing has happened.",
    ),
    Variant(
        "torch.func.grad",
        FUNC_GRAD,
        tiny_transformer,
        TEXT,
        (Prediction(REFERENCE_LOOP),),
        "It runs the same derivative formulas in the same engine, on the same values.",
    ),
    Variant(
        "torch.func.grad, branch",
        FUNC_GRAD,
        digits_branching,
        THREE,
        (Prediction(REFERENCE_LOOP, unused_at_first), Prediction(ZEROS_FOR_NONE)),
        "It returns a zero, not None, for a parameter that the loss does not depend on: it is zeros for None, "
        "bit for bit.",
    ),
    Variant(
        "fused AdamW",
        FUSED_ADAMW,
        tiny_transformer,
        TEXT,
        (Prediction(REFERENCE_LOOP, inexact_roots), Prediction(EXACT_ROOTS, fused_rounding)),
        "The for-loop takes its square root by torch.sqrt, which may be one ULP off; the fused kernel rounds its own "
        "correctly. Nothing else differs, where sizes are multiples of the 16 numbers that the kernel takes at once.",
    ),
    Variant(
        "full batch",
        FULL_BATCH,
        digits_mlp,
        THREE,
        (Prediction(REFERENCE_LOOP, two_microbatches),),
        "The sum over samples is taken inside one matrix product instead of by additions between three. Rounding "
        "only, for in fp64 it is 2^29 times as small; with BatchNorm or dropout it is a different training.",
    ),
)
