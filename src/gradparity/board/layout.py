"""Where TensorBoard shows what: the names of runs and tags, and the charts of *Custom Scalars*.

TensorBoard groups tags by what stands before the slash, sorts the groups, and opens the first ones. So the first group
tells the story, of all trainings in a folder; the numbers keep the others in the order in which one would ask for them.
"""

import re
from collections.abc import Sequence

from gradparity.training import Phase

REFERENCE = "the reference, by .backward()"
CANDIDATE = "the candidate"
APART = "how far they are apart"

MAP = "1 at a glance/{}, where they differ"
LOSS = "1 at a glance/{}, loss"
METRIC = "1 at a glance/{}, held-out"
LARGEST = "1 at a glance/{}, largest difference, log10(1 + ULP)"
NORM = "2 gradient norm/{}, before clipping"
CLIPPED_NORM = "2 gradient norm/{}, after clipping"
SCALE = "3 schedule/{}, loss scale"
RATE = "3 schedule/{}, learning rate"
ULP = "4 difference by phase, log10(1 + ULP)/{}, {}"
RELATIVE = "5 difference by phase, relative norm/{}, {}"
HISTOGRAM = "6 elements by the bits of their distance, 0 if identical/{}, {}"
PHASE_MAP = "7 divergence map of one phase/{}, {}"

FIRST_PAGE = "1 first divergence"
VERDICT_PAGE = "2 verdict"
CONFIGURATION_PAGE = "3 configuration"
FAULTS_PAGE = "4 faults that it knows"


def phase_name(phase: Phase) -> str:
    """A phase with its number, so that they sort as they pass.

    >>> phase_name(Phase.UNSCALED)
    '3 unscaled'
    """
    return f"{phase + 1} {phase.name.lower()}"


def charts(title: str) -> dict[str, dict[str, Sequence[object]]]:
    """The charts of *Custom Scalars*: of both runs what one compares by eye, then the difference of all phases."""
    overlaid = {
        "1 loss": [LOSS],
        "2 held-out metric": [METRIC],
        "3 gradient norm before and after clipping": [NORM, CLIPPED_NORM],
        "4 loss scale": [SCALE],
        "5 learning rate": [RATE],
        "6 difference at each phase, log10(1 + ULP): 0 is identical": [ULP],
    }
    return {
        f"{title}: both ways on top of each other": {
            name: ["Multiline", [re.escape(tag.format(title, "").strip()) for tag in tags]] for name, tags in overlaid.items()
        }
    }
