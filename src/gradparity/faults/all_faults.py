"""All faults, by name, in the order of a step."""

from gradparity.faults.catalogue.accumulation_windows import ACCUMULATION_WINDOWS
from gradparity.faults.catalogue.activation_checkpoints import ACTIVATION_CHECKPOINTS
from gradparity.faults.catalogue.backward import BACKWARD
from gradparity.faults.catalogue.clip_thresholds import CLIP_THRESHOLDS
from gradparity.faults.catalogue.clipping import CLIPPING
from gradparity.faults.catalogue.detached_graph import DETACHED_GRAPH
from gradparity.faults.catalogue.forward import FORWARD
from gradparity.faults.catalogue.loss_normalization import LOSS_NORMALIZATION
from gradparity.faults.catalogue.loss_scale import LOSS_SCALE
from gradparity.faults.catalogue.loss_targets import LOSS_TARGETS
from gradparity.faults.catalogue.manual_wiring import MANUAL_WIRING
from gradparity.faults.catalogue.mixed_precision import MIXED_PRECISION
from gradparity.faults.catalogue.optimizer_groups import OPTIMIZER_GROUPS
from gradparity.faults.catalogue.optimizer_options import OPTIMIZER_OPTIONS
from gradparity.faults.catalogue.optimizer_steps import OPTIMIZER_STEPS
from gradparity.faults.catalogue.resume import RESUME
from gradparity.faults.catalogue.resumed_data_and_state import RESUMED_DATA_AND_STATE
from gradparity.faults.catalogue.scaler_updates import SCALER_UPDATES
from gradparity.faults.catalogue.schedule_shapes import SCHEDULE_SHAPES
from gradparity.faults.catalogue.schedules import SCHEDULES
from gradparity.faults.catalogue.train_and_eval import TRAIN_AND_EVAL
from gradparity.faults.catalogue.weight_averages import WEIGHT_AVERAGES
from gradparity.faults.catalogue.zero_grad import ZERO_GRAD
from gradparity.faults.fault import Fault

THEMES: dict[str, tuple[Fault, ...]] = {
    "loss_normalization": LOSS_NORMALIZATION,
    "loss_targets": LOSS_TARGETS,
    "accumulation_windows": ACCUMULATION_WINDOWS,
    "zero_grad": ZERO_GRAD,
    "clipping": CLIPPING,
    "clip_thresholds": CLIP_THRESHOLDS,
    "loss_scale": LOSS_SCALE,
    "scaler_updates": SCALER_UPDATES,
    "mixed_precision": MIXED_PRECISION,
    "manual_wiring": MANUAL_WIRING,
    "backward": BACKWARD,
    "optimizer_groups": OPTIMIZER_GROUPS,
    "optimizer_options": OPTIMIZER_OPTIONS,
    "optimizer_steps": OPTIMIZER_STEPS,
    "schedules": SCHEDULES,
    "schedule_shapes": SCHEDULE_SHAPES,
    "train_and_eval": TRAIN_AND_EVAL,
    "weight_averages": WEIGHT_AVERAGES,
    "activation_checkpoints": ACTIVATION_CHECKPOINTS,
    "forward": FORWARD,
    "detached_graph": DETACHED_GRAPH,
    "resume": RESUME,
    "resumed_data_and_state": RESUMED_DATA_AND_STATE,
}

FAULTS: dict[str, Fault] = {fault.name: fault for theme in THEMES.values() for fault in theme}
