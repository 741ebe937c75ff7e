"""Values that depend on results of a GPU. The training does not wait; each is computed once those have arrived."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from torch import Tensor

from gradparity.auditing.gradient_looks import Look
from gradparity.trace.late_fingerprints import LateFingerprints
from gradparity.trace.late_hash import LateHash


class Later:
    """A value that is made of others once all of them are there.

    Args:
        make: called with the others, with numbers in place of the tensors among them. It reads no tensor itself.
        values: tensors of one real element, which are read now; results that are waited for; all else is passed on.
    """

    def __init__(self, make: Callable[..., Any], values: Sequence[Any]) -> None:
        self._make, self._values = make, list(values)
        self._at = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
        self._numbers = LateFingerprints([self._values[i].detach() for i in self._at])
        for i in self._at:
            self._values[i] = None

    def ready(self) -> bool:
        """Return whether nothing has to be waited for."""
        return self._numbers.ready() and all(value.ready() for value in self._values if isinstance(value, WAITED))

    def get(self) -> Any:
        """Return the value, after a wait for what it is made of."""
        values = [value.get() if isinstance(value, WAITED) else value for value in self._values]
        for i, number in zip(self._at, self._numbers.get().norms, strict=True):
            values[i] = number
        return self._make(*values)


WAITED: Final = (Later, Look, LateFingerprints, LateHash)
"""Results that a GPU may still compute: each says whether it is ``ready()``, and ``get()`` waits for it."""


def later(make: Callable[..., Any], *values: Any) -> Any:
    """Return ``make(*values)`` if all values have been computed, else a :class:`Later` that returns it on ``get()``.

    An event may hold a :class:`Later` in any field until :func:`gradparity.auditing.watching.late_looks.with_all_read`
    has replaced it.
    """
    if not any(isinstance(value, (Tensor, *WAITED)) for value in values):
        return make(*values)
    late = Later(make, values)
    return late.get() if late.ready() else late


def together(*values: Any) -> tuple[Any, ...]:
    """Return the values as a tuple, for :func:`later`."""
    return values
