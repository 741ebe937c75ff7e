"""Process-wide settings: report those that a loop has changed, and restore them."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch.overrides import _get_current_function_mode_stack, _pop_mode
from torch.utils._device import DeviceContext

Attribute: TypeAlias = tuple[str, str]
"""A module, or a class in a module, and the name of a function in it."""

_TRAINING_PACKAGES = (
    "torch.amp",
    "torch.autograd",
    "torch.nn",
    "torch.optim",
    "torch.utils.checkpoint",
    "torch.utils.data",
)
"""Packages whose functions a training loop calls, besides those of torch itself."""


class Setting(NamedTuple):
    """A process-wide setting: a function that reads it, and one that writes it."""

    get: Callable[[], Any]
    put: Callable[[Any], object]


def _depth_of_autocast() -> int:
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _put_depth_of_autocast(depth: int) -> None:
    while _depth_of_autocast() > depth:
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()


def _modes() -> list[object]:
    return [mode for mode in _get_current_function_mode_stack() if not isinstance(mode, DeviceContext)]


def _put_modes(modes: list[object]) -> None:
    while len(_modes()) > len(modes):
        _pop_mode()


def _flushes() -> bool:
    return float(torch.full((1,), 1e-310, dtype=torch.float64, device="cpu") * 0.5) == 0.0


def _put_inference_mode(on: bool) -> None:
    _GUARDS.append(torch._C._InferenceMode(on))
    _GUARDS[-1].__enter__()


_GUARDS: list[Any] = []
"""Guards that are kept alive, because a mode lasts only as long as its guard."""

SETTINGS: Mapping[str, Setting] = {
    "function modes": Setting(_modes, _put_modes),
    "inference mode": Setting(torch.is_inference_mode_enabled, _put_inference_mode),
    "gradient recording": Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "the default dtype": Setting(torch.get_default_dtype, torch.set_default_dtype),
    "the default device": Setting(
        torch.get_default_device, lambda device: torch.set_default_device(None if device.type == "cpu" else device)
    ),
    "autocast": Setting(lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    "autocast's dtype": Setting(lambda: torch.get_autocast_dtype("cpu"), lambda d: torch.set_autocast_dtype("cpu", d)),
    "autocast's depth": Setting(_depth_of_autocast, _put_depth_of_autocast),
    "deterministic algorithms": Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "anomaly detection": Setting(torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    "the float32 matmul precision": Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "flushing of denormal numbers": Setting(_flushes, torch.set_flush_denormal),
    "the number of threads": Setting(torch.get_num_threads, torch.set_num_threads),
    "the working directory": Setting(os.getcwd, os.chdir),
}
"""All settings, in the order in which they are restored."""


def torch_functions() -> dict[Attribute, object]:
    """Return the functions, classes and methods of torch that a training loop calls."""
    found: dict[Attribute, object] = {}
    for name, module in list(sys.modules.items()):
        if name in ("torch", "torch._tensor", "torch.functional") or name.startswith(_TRAINING_PACKAGES):
            found |= {(name, key): thing for key, thing in vars(module).items() if callable(thing)}
            for key, kind in list(vars(module).items()):
                if isinstance(kind, type) and kind.__module__ == name:
                    found |= {(f"{name}.{key}", m): f for m, f in vars(kind).items() if callable(f)}
    return found


def global_hooks() -> Iterator[tuple[str, dict[int, object]]]:
    """Yield, with their names, the dictionaries in which torch keeps hooks on all modules and all optimizers."""
    for module in ("torch.nn.modules.module", "torch.optim.optimizer"):
        for name, hooks in vars(sys.modules[module]).items():
            if name.startswith("_global_") and isinstance(hooks, dict):
                yield f"{module}.{name}", hooks


@dataclass(frozen=True)
class GlobalState:
    """A snapshot of all settings, global hooks and functions, made by :meth:`now`."""

    values: Mapping[str, Any]
    hooks: Mapping[str, Mapping[int, object]]
    functions: Mapping[Attribute, object]

    @classmethod
    def now(cls) -> "GlobalState":
        """Take a snapshot of the current state."""
        values = {name: setting.get() for name, setting in SETTINGS.items()}
        return cls(values, {name: dict(hooks) for name, hooks in global_hooks()}, torch_functions())

    def changed(self) -> list[str]:
        """Return a phrase for everything that has changed since the snapshot."""
        values = ((name, setting.get()) for name, setting in SETTINGS.items())
        changes = [f"{name} {_in_words(value)}" for name, value in values if value != self.values[name]]
        changes += [f"a hook in {name}" for name, hooks in global_hooks() if hooks.keys() - self.hooks[name].keys()]
        return changes + [f"a replaced {owner}.{name}" for owner, name in self._replaced()]

    def restore(self) -> None:
        """Restore everything to the snapshot."""
        for name, setting in SETTINGS.items():
            if setting.get() != self.values[name]:
                setting.put(self.values[name])
        for name, hooks in global_hooks():
            for key in hooks.keys() - self.hooks[name].keys():
                del hooks[key]
        for owner, name in self._replaced():
            if (owner, name) in self.functions:
                setattr(_owner(owner), name, self.functions[owner, name])
            else:
                delattr(_owner(owner), name)

    def _replaced(self) -> list[Attribute]:
        now, before = torch_functions(), self.functions
        changed = [at for at, thing in now.items() if thing is not before.get(at, thing)]
        replaced = [at for at in changed if not _is_torchs_own(now[at], before[at])]
        imported = {owner for owner, _ in before}  # a module that was imported since has replaced nothing
        new = [at for at in now.keys() - before.keys() if at[0] in imported and _is_user_code(now[at])]
        return sorted(replaced + new)


def _is_torchs_own(function: Any, was: object) -> bool:
    """Return whether torch itself has replaced a function.

    It wraps some of its functions when they are first needed, its compiler replaces some when it is imported, and it
    has a class that follows the default dtype.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        return isinstance(function, type) and function.__module__.startswith("torch")
    file, folder = str(getattr(code, "co_filename", "")), os.path.dirname(torch.__file__)
    wraps_it = getattr(function, "__wrapped__", None) is was
    return (wraps_it and file.startswith(folder)) or file.startswith(os.path.join(folder, "_dynamo"))


def _is_user_code(function: Any) -> bool:
    """Return whether a function is user code that its class or module did not define before.

    For example, after a user has replaced ``Adam.step``, torch gives AdamW a ``step`` that wraps the replacement.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)  # torch wraps it in its hooks on first use
    file = getattr(code, "co_filename", None)
    return isinstance(file, str) and not file.startswith((os.path.dirname(torch.__file__), "<"))


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return f"({', '.join(type(mode).__name__ for mode in value)}) on"
    return f"at {value}"


def _owner(name: str) -> Any:
    """Return the module, or the class in a module, with a dotted ``name``."""
    if name in sys.modules:
        return sys.modules[name]
    module, _, kind = name.rpartition(".")
    return vars(sys.modules[module])[kind]
