"""A loss scaler that a loop builds itself, or none at all, and the reference with the same."""

from dataclasses import dataclass
from types import FrameType

from torch.amp.grad_scaler import GradScaler

from gradparity.faults import Change
from gradparity.faults.patching import reference_with
from gradparity.faults.stress_scenario import Cast, build

_STEP = GradScaler.step.__code__
"""Taken before anything watches the method."""


@dataclass(frozen=True)
class OwnScaler:
    """A loss scaler of the loop's own, as it was built."""

    init_scale: float
    growth_factor: float
    backoff_factor: float
    growth_interval: int
    enabled: bool


def own_scaler(frame: FrameType | None, given: GradScaler) -> OwnScaler | None:
    """Return the scaler that makes the step in which ``frame`` is; ``None`` if it is the ``given`` one, or none is."""
    while frame is not None:
        scaler = frame.f_locals.get("self") if frame.f_code is _STEP else None
        if isinstance(scaler, GradScaler) and scaler is not given:
            return _described(scaler)
        frame = frame.f_back
    return None


def _described(scaler: GradScaler) -> OwnScaler:
    enabled = scaler.is_enabled()
    if not enabled:  # it has no numbers then
        return OwnScaler(1.0, 2.0, 0.5, 1, enabled)
    numbers = scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()
    return OwnScaler(scaler._init_scale, *numbers, enabled)


def with_own_scaler(scaler: OwnScaler) -> Change:
    """Return the change that makes the reference train with such a scaler."""
    return Change(
        "own-scaler",
        {
            build: f"""
-        init_scale=INIT_SCALE,
-        growth_factor=GROWTH_FACTOR,
-        backoff_factor=BACKOFF_FACTOR,
-        growth_interval=GROWTH_INTERVAL,
-        enabled=precision == "fp16",
+        init_scale={scaler.init_scale!r},
+        growth_factor={scaler.growth_factor!r},
+        backoff_factor={scaler.backoff_factor!r},
+        growth_interval={scaler.growth_interval!r},
+        enabled={scaler.enabled!r},
""",
        },
    )


WITHOUT_SCALER = Change(
    "no-scaler",
    {
        build: """
-        enabled=precision == "fp16",
+        enabled=False,
""",
    },
)
"""The change that makes the reference train without a loss scale."""


def build_without_scaler(precision: str) -> Cast:
    """Build the stress scenario for a loop that takes no scaler: the one that it leaves alone is disabled."""
    cast: Cast = reference_with([WITHOUT_SCALER])["build"](precision)
    return cast
