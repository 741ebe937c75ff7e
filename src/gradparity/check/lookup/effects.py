"""The effect of a fault where it first shows: the values that it changes there, and what it makes of them.

If two faults show at one place, each value there is one fault's, unless both change it. So most pairs cannot make what
a loop has there, and need not be run. This fails for four in a thousand pairs of the dictionary that show in the first
forward.
"""

from functools import cache

import xxhash

from gradparity.check.running.observe import Observation

_HASH_BYTES = 4
EFFECT_BYTES = 2 * _HASH_BYTES
"""Bytes for each value: the hash of its name, and of the value."""


def effect_of(one: Observation, reference: Observation) -> bytes | None:
    """Return the values in which ``one`` differs from ``reference``, as hashes; ``None`` if it is of another place."""
    if one.place != reference.place:
        return None
    values, others = ({(part.value, name): value for part, name, value in each.content} for each in (one, reference))
    names = sorted(values.keys() | others.keys())
    changed = (name for name in names if (name in values, values.get(name)) != (name in others, others.get(name)))
    return b"".join(sorted(_hash(name) + _hash((name in values, values.get(name))) for name in changed))


def may_be_both(whole: bytes | None, one: bytes | None, other: bytes | None) -> bool:
    """Return whether ``whole`` may be the effect of two faults, which alone have the effects ``one`` and ``other``.

    An effect is ``None`` if something else is done there; then one of the two does that.
    """
    if whole is None or one is None or other is None:
        return whole is None and (one is None or other is None)
    all_of_it, mine, theirs = _values(whole), _values(one), _values(other)
    of_one = {name: value for name, value in (mine | theirs).items() if (name in mine) != (name in theirs)}
    return all_of_it.keys() <= mine.keys() | theirs.keys() and of_one.items() <= all_of_it.items()


def may_hold(whole: bytes | None, one: bytes | None) -> bool:
    """Return whether ``whole`` may be the effect of a fault that alone has the effect ``one``, and of an unseen one."""
    if whole is None or one is None:
        return whole is None
    return _values(one).keys() <= _values(whole).keys()


@cache
def _values(effect: bytes) -> dict[bytes, bytes]:
    pairs = (effect[i : i + EFFECT_BYTES] for i in range(0, len(effect), EFFECT_BYTES))
    return {pair[:_HASH_BYTES]: pair[_HASH_BYTES:] for pair in pairs}


def _hash(value: object) -> bytes:
    return xxhash.xxh32_digest(repr(value).encode())
