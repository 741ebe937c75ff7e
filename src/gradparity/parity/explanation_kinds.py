"""The kinds of explanations of a first difference. Each is given only if the comparison shows it."""

from dataclasses import dataclass
from enum import StrEnum


class Meaning(StrEnum):
    """The relation between the two loops that an explanation reports."""

    NOTHING = "nothing"
    """The difference could be anything."""
    # For any difference.
    ROUNDING = "as small as rounding"
    SIGN = "the opposite sign"
    # For the loss.
    LOSS_SCALE = "the factor between the losses is the loss scale"
    LOSS_FACTOR = "one factor between all losses of a step"
    SUMMED = "one loss is the sum of the other loop's losses"
    LOSS = "the loss differs, from the same state"
    # For the gradients.
    SHARED = "gradients share memory in the candidate"
    SHARED_IN_REFERENCE = "gradients share memory in the reference"
    ZEROS = "zeros where the reference has no gradient"
    NO_GRADIENT = "no gradient where the reference has one"
    LEFT_OVER = "the gradients of the step before are still there"
    NOT_EMPTIED = "only one loop called zero_grad before this backward"
    EMPTIED = "only one loop called zero_grad after a backward"
    CLIPPED_INSIDE = "only one loop clips between two backwards"
    BACKWARD = "the losses are the same bits, the gradients are not"
    LENGTH = "one factor between all gradients"
    MEMORY_ORDER = "a gradient lies in memory in another order than its parameter"
    CLIPPED_SCALED = "gradients were clipped while they were multiplied by the loss scale"
    NOT_UNSCALED = "unscale_ left a gradient as it was"
    CLIP = "the gradients change by another amount between backward and step"
    CLIPS = "another number of clips in a step"
    BACKWARDS = "another number of backwards in a step"
    # For the step, and everything else.
    SKIPPED = "one loop skipped the step"
    PAST_THE_SCALER = "one loop steps the optimizer itself, the other through the scaler"
    UPDATE = "another update from the same gradients and hyperparameters"
    START = "other weights before the first step"
    WRITTEN = "something else than a step wrote the parameters"
    SCHEDULE_AFTER_SKIP = "only one loop advances the schedule after a skipped step"
    SCHEDULE = "the schedule was advanced another number of times"
    RATE = "another learning rate in the same state of the schedule"
    SCALE = "the loss scale was updated another number of times"
    BUFFERS = "buffers were written after the forward"
    RANDOM = "the random stream is in another state"
    STEPS = "another number of steps"


@dataclass(frozen=True)
class LikelyCause:
    """An explanation: its kind, and its words."""

    meaning: Meaning = Meaning.NOTHING
    words: str = ""


NOTHING = LikelyCause()
