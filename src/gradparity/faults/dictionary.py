"""All faults, by name, in the order of a step."""

from gradparity.faults.catalogue.averages import AVERAGES
from gradparity.faults.catalogue.clipping import CLIPPING
from gradparity.faults.catalogue.decaying import DECAYING
from gradparity.faults.catalogue.differentiating import DIFFERENTIATING
from gradparity.faults.catalogue.graphs import GRAPHS
from gradparity.faults.catalogue.grouping import GROUPING
from gradparity.faults.catalogue.halves import HALVES
from gradparity.faults.catalogue.modes import MODES
from gradparity.faults.catalogue.normalization import NORMALIZATION
from gradparity.faults.catalogue.overflow import OVERFLOW
from gradparity.faults.catalogue.recomputing import RECOMPUTING
from gradparity.faults.catalogue.resuming import RESUMING
from gradparity.faults.catalogue.schedules import SCHEDULES
from gradparity.faults.catalogue.stepping import STEPPING
from gradparity.faults.catalogue.thresholds import THRESHOLDS
from gradparity.faults.catalogue.unscaling import UNSCALING
from gradparity.faults.catalogue.wiring import WIRING
from gradparity.faults.catalogue.zeroing import ZEROING
from gradparity.faults.fault import Fault

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
