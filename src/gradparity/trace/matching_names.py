"""Matching of parameter names between two loops. Two names of one trace never become the same name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

from gradparity.parity.state import Part
from gradparity.trace.events import Trace
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue

HIDDEN = frozenset({"_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Components that torch.compile, Fabric, FSDP and checkpoint_wrapper add to the names of parameters."""

_WRAPPERS = HIDDEN | {"module"}
"""Also the component that DDP and DataParallel add. A user's own module may have that name as well."""

_NAMED = (Part.GRADIENTS, Part.PARAMETERS, Part.BUFFERS)
"""Parts whose values have the names of the model's parameters and buffers."""

_MEMORY = "memory of "


def named_alike(reference: Trace, candidate: Trace) -> tuple[Trace, Trace]:
    """Return both traces with names that match, as far as possible.

    Names are changed only if more of them match afterwards. Two kinds of components may be dropped: those that
    wrappers add, and those that all names of one trace begin with, such as the ``model.`` of a LightningModule that
    holds a model.
    """
    ours, theirs = _names_of(reference), _names_of(candidate)
    if ours == theirs:
        return reference, candidate
    best, chosen = len(ours & theirs), (dict(zip(ours, ours, strict=True)), dict(zip(theirs, theirs, strict=True)))
    for mine in _renamings(ours):
        for other in _renamings(theirs):
            if (matching := len({*mine.values()} & {*other.values()})) > best:
                best, chosen = matching, (mine, other)
    return renamed(reference, chosen[0]), renamed(candidate, chosen[1])


def unmatched(reference: Trace, candidate: Trace) -> str:
    """Return a sentence on parameters without a common name after :func:`named_alike`; empty if there are none."""
    ours, theirs = parameters(reference), parameters(candidate)
    only = [[n for n in mine if n not in {*other}] for mine, other in ((ours, theirs), (theirs, ours))]
    if not any(only) or not ours or not theirs:
        return ""
    if len(only[0]) == len(ours):
        return (
            f"No parameter has the same name in both ({ours[0]} in the reference, {theirs[0]} in the candidate), "
            "so no gradients and no parameters are compared."
        )
    counts = [
        f"{len(names)} only in the {who} ({names[0]}{', ...' if len(names) > 1 else ''})"
        for who, names in zip(("reference", "candidate"), only, strict=True)
        if names
    ]
    return f"Parameters without a counterpart of the same name: {' and '.join(counts)}."


def _names_of(trace: Trace) -> frozenset[str]:
    """Return all names of the model's parameters and buffers."""
    return frozenset(name for r in trace.records for part in _NAMED for name in r.parts.get(part, ()))


def _renamings(names: frozenset[str]) -> Iterator[dict[str, str]]:
    """Yield renamings that keep all names distinct, the one that changes least first."""
    paths = {name: tuple(name.split(".")) for name in names}
    for wrappers in (frozenset[str](), HIDDEN, _WRAPPERS):
        without = {name: tuple(part for part in path if part not in wrappers) for name, path in paths.items()}
        for cut in range(_common(list(without.values())) + 1):
            new = {name: ".".join(path[cut:]) for name, path in without.items()}
            if len({*new.values()}) == len(new) and all(new.values()):
                yield new


def _common(paths: Sequence[tuple[str, ...]]) -> int:
    """Return the number of leading components that all ``paths`` share, not counting a last component."""
    most = min((len(path) - 1 for path in paths), default=0)
    return next((i for i in range(most) if len({path[i] for path in paths}) > 1), max(most, 0))


def parameters(trace: Trace) -> list[str]:
    """Return the names of the parameters."""
    return next((list(r.parts[Part.GRADIENTS]) for r in trace.records if Part.GRADIENTS in r.parts), [])


def renamed(trace: Trace, names: Mapping[str, str]) -> Trace:
    """Return ``trace`` with new names for parameters and buffers; tensors on disk keep their names."""
    if all(old == new for old, new in names.items()):
        return trace
    rename = _renaming(names)

    def value(part: Part, printed: FingerprintValue) -> FingerprintValue:
        if isinstance(printed, tuple) and not isinstance(printed, Fingerprint):
            return tuple(map(rename, printed)) if part == Part.OPTIMIZER else printed
        if part == Part.ALIASING and isinstance(printed, str) and printed.startswith(_MEMORY):
            return _MEMORY + rename(printed.removeprefix(_MEMORY))
        return printed

    records = [
        replace(
            r,
            parts={
                part: {rename(name): value(part, v) for name, v in values.items()} for part, values in r.parts.items()
            },
        )
        for r in trace.records
    ]
    return replace(trace, records=records, rename=lambda name: rename(trace.rename(name)))


def _renaming(names: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that renames names beginning with one of ``names``.

    Such names are, for example, ``head.weight.exp_avg`` and ``head.weight.grad``.
    """

    @cache
    def rename(name: str) -> str:
        ends = (i for i in range(len(name), 0, -1) if i == len(name) or name[i] in ".[")
        known = next((i for i in ends if name[:i] in names), 0)
        return names[name[:known]] + name[known:] if known else name

    return rename
