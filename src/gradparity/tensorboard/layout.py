"""The layout of the TensorBoard pages: names of runs and tags, and the charts of *Custom Scalars*.

TensorBoard groups tags by the part before the slash, sorts the groups, and opens the first ones. So the first group
is the overview of all trainings in a folder, and numbers keep the other groups in order of interest.

Runs have short names without spaces: the small tables beneath the charts break lines at spaces, and then hide the
second run. No tag has a parenthesis: *Custom Scalars* reads one as the start of a run's name, and leaves the chart
empty.
"""

import re

from gradparity.training import Phase

DIFFERENCE_RUN = "how_far_apart"

MAP = "1 glance/{}, 1 divergence map"
LOSS = "1 glance/{}, 2 loss"
METRIC = "1 glance/{}, 3 held-out"
LARGEST_DIFFERENCE = "1 glance/{}, 4 largest difference, log10 of 1 + ULP"
NORM = "2 gradient norm/{}, before clipping"
CLIPPED_NORM = "2 gradient norm/{}, after clipping"
SCALE = "3 schedule/{}, loss scale"
RATE = "3 schedule/{}, learning rate"
ULP = "4 difference at each phase, log10 of 1 + ULP/{}, {}"
RELATIVE = "5 difference at each phase, relative norm/{}, {}"
HISTOGRAM = "6 bits of the ULP distance/{}, {}"
PHASE_MAP = "7 divergence map of each phase/{}, {}"

FIRST_PAGE = "1 first divergence"
VERDICT_PAGE = "2 verdict"
EVENTS_PAGE = "3 what the loops did"
CONFIGURATION_PAGE = "3 configuration"
FAULTS_PAGE = "4 faults that it knows"


def run_names(candidate: str) -> tuple[str, str]:
    """Return the folders of both runs, which are their names; without a candidate's name, neither loop is known.

    >>> run_names("manual"), run_names("backward")
    (('by_backward', 'by_manual'), ('by_backward', 'by_backward_again'))
    """
    if not candidate:
        return "reference", "candidate"
    return "by_backward", f"by_{candidate}" if candidate != "backward" else "by_backward_again"


def phase_name(phase: Phase) -> str:
    """Return the name of a phase with its number, so that names sort in the order of the phases.

    >>> phase_name(Phase.UNSCALED)
    '3 unscaled'
    """
    return f"{phase + 1} {phase.name.lower()}"


def charts(title: str) -> dict[str, dict[str, list[str | list[str]]]]:
    """Return the charts of *Custom Scalars*: both runs to compare by eye, then the difference at each phase."""
    overlaid = {
        "1 loss": [LOSS],
        "2 held-out metric": [METRIC],
        "3 gradient norm before and after clipping": [NORM, CLIPPED_NORM],
        "4 loss scale": [SCALE],
        "5 learning rate": [RATE],
        "6 log10 of 1 + ULP at each phase; 0 is identical": [ULP],
    }
    shown: dict[str, list[str | list[str]]] = {
        name: ["Multiline", [re.escape(tag.format(title, "").strip()) for tag in tags]]
        for name, tags in overlaid.items()
    }
    return {f"{title}: both ways on top of each other": shown}
