"""All faults, by name, in the order of a step."""

from gradparity.faults.averages import AVERAGES
from gradparity.faults.clipping import CLIPPING
from gradparity.faults.decaying import DECAYING
from gradparity.faults.differentiating import DIFFERENTIATING
from gradparity.faults.fault import Fault
from gradparity.faults.graphs import GRAPHS
from gradparity.faults.grouping import GROUPING
from gradparity.faults.halves import HALVES
from gradparity.faults.modes import MODES
from gradparity.faults.normalization import NORMALIZATION
from gradparity.faults.overflow import OVERFLOW
from gradparity.faults.recomputing import RECOMPUTING
from gradparity.faults.resuming import RESUMING
from gradparity.faults.schedules import SCHEDULES
from gradparity.faults.stepping import STEPPING
from gradparity.faults.thresholds import THRESHOLDS
from gradparity.faults.unscaling import UNSCALING
from gradparity.faults.wiring import WIRING
from gradparity.faults.zeroing import ZEROING

THEMES: dict[str, tuple[Fault, ...]] = {
    "normalization": NORMALIZATION,
    "grouping": GROUPING,
    "zeroing": ZEROING,
    "clipping": CLIPPING,
    "thresholds": THRESHOLDS,
    "unscaling": UNSCALING,
    "overflow": OVERFLOW,
    "halves": HALVES,
    "wiring": WIRING,
    "differentiating": DIFFERENTIATING,
    "decaying": DECAYING,
    "stepping": STEPPING,
    "schedules": SCHEDULES,
    "modes": MODES,
    "averages": AVERAGES,
    "recomputing": RECOMPUTING,
    "graphs": GRAPHS,
    "resuming": RESUMING,
}

FAULTS: dict[str, Fault] = {fault.name: fault for theme in THEMES.values() for fault in theme}
