"""Hooks and patches of a recorder in this process, searched wherever torch allows hooks or patches."""

from gradparity.check.running.global_state import global_hooks, torch_functions
from gradparity.check.running.trained_objects import hook_dictionaries
from gradparity.trace import wrapping
from gradparity.trace.step_recorder import Recorder


def is_of_a_recorder(thing):
    code = getattr(thing, "__code__", None)
    return (getattr(code, "co_filename", None) == wrapping.__file__) or isinstance(
        getattr(thing, "__self__", None), Recorder
    )


def of_a_recorder(model, *others):
    """Return the places of all hooks and patches of recorders: on torch, and on the given objects and their classes."""
    places = dict(torch_functions())
    for thing in (model, *others):
        for kind in type(thing).__mro__:
            places |= {(f"{kind.__module__}.{kind.__name__}", name): value for name, value in vars(kind).items()}
    found = {place for place, thing in places.items() if is_of_a_recorder(thing)}
    hooked = [*global_hooks()]
    for name, thing in [*model.named_modules(), *model.named_parameters(), *((type(x).__name__, x) for x in others)]:
        hooked += [(name, hooks) for hooks in hook_dictionaries(thing)]
    return found | {(name, "hook") for name, hooks in hooked if any(map(is_of_a_recorder, hooks.values()))}
