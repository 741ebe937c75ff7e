"""Comparison of the values in two records, which hold fingerprints in place of tensors."""

import math
from collections.abc import Iterator

from torch import Tensor

from gradparity.parity.difference_kinds import ZEROS_WORD, Kind, form_in_words, kind_of_values
from gradparity.parity.difference_kinds import kinds as kinds_of_tensors
from gradparity.parity.mismatches import Compared, Measure, Mismatch, compare_by_name
from gradparity.parity.state import OWN, Part, Unseen
from gradparity.trace.events import Record, Trace
from gradparity.trace.fingerprint import UNREAD, Fingerprint, FingerprintValue
from gradparity.trace.trace_file import tensor_of
from gradparity.trace.until_difference import is_zero

_TRAINING = ".training"
"""Suffix of the flags that say whether a module is in training mode."""


def compare_records(part: Part, reference: tuple[Trace, Record], candidate: tuple[Trace, Record]) -> Compared:
    """Compare the values of a part in two records, as :func:`gradparity.parity.compare.compare` does for live ones."""
    renamed = reference[0].rename is not candidate[0].rename

    def mismatches(name: str, a: FingerprintValue, b: FingerprintValue, measure: Measure) -> Iterator[Mismatch]:
        if part == Part.MODES and renamed and name.endswith(_TRAINING):
            return  # names of modules, unlike names of parameters, are not matched
        for kind in fingerprint_kinds(a, b):
            pair = _kept_pair(reference, candidate, part, name) if kind == Kind.BITS else None
            figures = measure(*pair) if pair else None
            ratio = _ratio(a, b) if kind == Kind.BITS else None
            yield Mismatch(part, name, kind, _in_words(kind, a), _in_words(kind, b), figures, ratio)

    return compare_by_name(
        part,
        values_of(part, reference[1]),
        values_of(part, candidate[1]),
        mismatches,
        lambda a, b: (_is_unread(a) and _is_unread(b)) or not are_comparable(a, b),
    )


def fingerprint_kinds(a: FingerprintValue, b: FingerprintValue) -> Iterator[Kind]:
    """Yield each kind of difference between two values of a trace; contents hashed in two ways show none."""
    if isinstance(a, Fingerprint) and isinstance(b, Fingerprint):
        yield from kinds_of_tensors(a, b, lambda: a.digest == b.digest or not are_comparable(a, b))
    elif kind := kind_of_values(a, b):
        yield kind


def are_comparable(a: FingerprintValue, b: FingerprintValue) -> bool:
    """Return whether equality can be decided, as far as the hashes are concerned: one of them made both digests."""
    return not (isinstance(a, Fingerprint) and isinstance(b, Fingerprint)) or a.by == b.by


def values_of(part: Part, record: Record) -> dict[str, FingerprintValue]:
    """Return the values of a part. For memory, add the gradients that share none, which a trace leaves out."""
    values = record.parts.get(part, {})
    if part != Part.ALIASING:
        return dict(values)
    gradients = record.parts.get(Part.GRADIENTS, {})
    return {f"{name}.grad": OWN for name, g in gradients.items() if g is not None} | dict(values)


def hashed_numbers(value: FingerprintValue) -> int:
    """Return the number of numbers that a trace has hashed for ``value``."""
    if _is_unread(value):
        return 0
    return math.prod(value.shape) if isinstance(value, Fingerprint) else 1


def _is_unread(value: FingerprintValue) -> bool:
    """Return whether a trace has only the type and shape of ``value``, so that equality cannot be decided."""
    return isinstance(value, Unseen) or (isinstance(value, Fingerprint) and value.digest == UNREAD)


def _kept_pair(
    reference: tuple[Trace, Record], candidate: tuple[Trace, Record], part: Part, name: str
) -> tuple[Tensor, Tensor] | None:
    """Return the two tensors if both traces kept them and they can be paired: both real or complex, of one form."""
    ours, theirs = (tensor_of(trace, record, part, name) for trace, record in (reference, candidate))
    if ours is None or theirs is None or not (ours.is_floating_point() or ours.is_complex()):
        return None
    return (ours, theirs) if (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape) else None


def _ratio(a: FingerprintValue, b: FingerprintValue) -> float | None:
    """Return the candidate's norm over the reference's, with the sign for single elements; ``None`` if not finite."""
    if isinstance(a, Fingerprint) and isinstance(b, Fingerprint) and a.norm and math.isfinite(b.norm / a.norm):
        return b.norm / a.norm
    return None


def _in_words(kind: Kind, value: FingerprintValue) -> str:
    if not isinstance(value, Fingerprint):
        return str(value)
    match kind:
        case Kind.BITS if not math.isfinite(value.norm):
            return "values that are not finite" if math.prod(value.shape) != 1 else "not finite"
        case Kind.BITS if math.prod(value.shape) == 1:
            return f"{value.norm:.6g}"  # a single element's norm is its value
        case Kind.BITS:
            return f"norm {value.norm:.6g}"
        case Kind.PRESENCE if is_zero(value):
            return f"{ZEROS_WORD} of shape {value.shape}"
        case _:
            return form_in_words(kind, value)
