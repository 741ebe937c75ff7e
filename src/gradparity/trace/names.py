"""The same parameter by the names that it has in two loops."""

import re
from collections.abc import Callable
from dataclasses import replace

from gradparity.parity.state import Part
from gradparity.trace.fingerprint import Fingerprint, Printed
from gradparity.trace.record import Trace

WRAPPERS = re.compile(r"\b(?:_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
"""What torch.compile, Fabric, FSDP, checkpoint_wrapper and DDP put into the names of parameters."""


def named_alike(reference: Trace, candidate: Trace) -> tuple[Trace, Trace]:
    """Both traces without what wrappers add to names, and without a prefix that only one has before all of them."""
    reference, candidate = (renamed(trace, lambda name: WRAPPERS.sub("", name)) for trace in (reference, candidate))
    ours, theirs = parameters(reference), parameters(candidate)
    if prefix := prefix_of(theirs, ours):
        return reference, renamed(candidate, lambda name: name.replace(prefix, "", 1))
    if prefix := prefix_of(ours, theirs):
        return renamed(reference, lambda name: name.replace(prefix, "", 1)), candidate
    return reference, candidate


def prefix_of(longer: list[str], shorter: list[str]) -> str:
    """What stands before every name of ``shorter`` in ``longer``, if it is the same and there are no other names."""
    if not shorter or len(longer) != len(shorter) or not longer[0].endswith(shorter[0]):
        return ""
    prefix = longer[0].removesuffix(shorter[0])
    return prefix if longer == [prefix + name for name in shorter] else ""


def parameters(trace: Trace) -> list[str]:
    """The names of the parameters."""
    return next((list(r.parts[Part.GRADIENTS]) for r in trace.records if Part.GRADIENTS in r.parts), [])


def renamed(trace: Trace, rename: Callable[[str], str]) -> Trace:
    """``trace`` with other names for everything; tensors on disk keep theirs."""

    def value(printed: Printed) -> Printed:
        if isinstance(printed, tuple) and not isinstance(printed, Fingerprint):
            return tuple(map(rename, printed))
        return rename(printed) if isinstance(printed, str) else printed

    records = [
        replace(r, parts={part: {rename(n): value(v) for n, v in values.items()} for part, values in r.parts.items()})
        for r in trace.records
    ]
    return replace(trace, records=records, rename=lambda name: rename(trace.rename(name)))
