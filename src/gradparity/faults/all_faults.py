"""All faults, by name, in the order of a step."""

from gradparity.faults.catalogue.accumulation_windows import GROUPING
from gradparity.faults.catalogue.activation_checkpoints import RECOMPUTING
from gradparity.faults.catalogue.backward import DIFFERENTIATING
from gradparity.faults.catalogue.clip_thresholds import THRESHOLDS
from gradparity.faults.catalogue.clipping import CLIPPING
from gradparity.faults.catalogue.detached_graph import GRAPHS
from gradparity.faults.catalogue.loss_normalization import NORMALIZATION
from gradparity.faults.catalogue.loss_scale import UNSCALING
from gradparity.faults.catalogue.manual_wiring import WIRING
from gradparity.faults.catalogue.mixed_precision import HALVES
from gradparity.faults.catalogue.optimizer_groups import DECAYING
from gradparity.faults.catalogue.optimizer_steps import STEPPING
from gradparity.faults.catalogue.resume import RESUMING
from gradparity.faults.catalogue.scaler_updates import OVERFLOW
from gradparity.faults.catalogue.schedules import SCHEDULES
from gradparity.faults.catalogue.train_and_eval import MODES
from gradparity.faults.catalogue.weight_averages import AVERAGES
from gradparity.faults.catalogue.zero_grad import ZEROING
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
