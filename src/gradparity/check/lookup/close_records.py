"""Records of two loops whose tensors have about the same norms, so that nothing but rounding may differ."""

import math
from collections.abc import Mapping
from typing import TypeAlias

from gradparity.parity.state import Part
from gradparity.trace.events import PHASE, Record
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue, number_of

Parts: TypeAlias = Mapping[Part, Mapping[str, FingerprintValue]]


def has_finite_gradients(parts: Parts) -> bool:
    """Return whether all gradients are finite."""
    gradients = parts.get(Part.GRADIENTS, {}).values()
    return all(math.isfinite(g.norm) for g in gradients if isinstance(g, Fingerprint))


def is_of_a_step(record: Record) -> bool:
    """Return whether a record is about a whole optimizer step."""
    return record.event in PHASE and record.microbatch is None


def are_close(one: Record, other: Record, tolerance: float, unasked: frozenset[Part]) -> bool:
    """Return whether two records are of the same place, and their tensors have about the same norms."""
    return (one.step, one.event) == (other.step, other.event) and are_close_parts(
        one.parts, other.parts, tolerance, unasked
    )


def are_close_parts(one: Parts, other: Parts, tolerance: float, unasked: frozenset[Part]) -> bool:
    """Return whether the tensors of two events have about the same norms, in all parts that are asked for."""
    ignored = {Part.RNG, *unasked}
    if one.keys() - ignored != other.keys() - ignored:
        return False
    if not (has_finite_gradients(one) or has_finite_gradients(other)):
        ignored.add(Part.GRADIENTS)  # both overflow; in which elements they do is rounding
    return all(
        one[part].keys() == other[part].keys()
        and all(_are_close_values(value, other[part][name], tolerance) for name, value in one[part].items())
        for part in one
        if part not in ignored
    )


def _are_close_values(a: FingerprintValue, b: FingerprintValue, tolerance: float) -> bool:
    if isinstance(a, Fingerprint) and isinstance(b, Fingerprint):
        alike = (a.dtype, a.shape) == (b.dtype, b.shape)
        same = a.norm == b.norm or (math.isnan(a.norm) and math.isnan(b.norm))
        return alike and (same or math.isclose(a.norm, b.norm, rel_tol=tolerance))
    if {type(a), type(b)} == {Fingerprint, float}:  # such as a learning rate in a tensor
        return math.isclose(number_of(a), number_of(b), rel_tol=tolerance)
    return type(a) is type(b) and repr(a) == repr(b)
