"""A guard for collectives: all ranks go on with a run of the reference, or none does.

A rank stops a faulty loop when it has observed enough of it. The other ranks would wait for it in their next exchange.
So before each exchange every rank announces it, and ranks go on only if all announce the same exchange.
"""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from gradparity.training.collectives import average, share, total

_T = TypeVar("_T")

_EXCHANGES: Mapping[str, Callable[..., Any]] = {"total": total, "share": share, "average": average}
"""All exchanges that the reference calls, by the names that it uses."""

_END = 0


class RanksPartedError(RuntimeError):
    """The ranks are not about to make the same exchange."""


class CollectiveGuard:
    """A guard under which all ranks make the same exchanges, or none. It has a process group of its own."""

    def __init__(self) -> None:
        """Create the process group; a collective call, like all others of this class."""
        self._group = dist.new_group()
        self._parted = False

    def guard(self, names: MutableMapping[str, Any]) -> None:
        """Guard the exchanges of the reference whose functions are ``names``.

        The reference then makes an exchange only if all ranks are about to make it.
        """
        for code, (name, exchange) in enumerate(_EXCHANGES.items(), start=_END + 1):
            names[name] = self._guarded(code, exchange)

    def _guarded(self, code: int, exchange: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._parted or not self._same(code):
                raise RanksPartedError("another rank is not about to make this exchange")
            return exchange(*args, **kwargs)

        return guarded

    def end_run(self) -> None:
        """Mark the end of a run of the reference; every rank must call this, however its run ended."""
        if not self._parted:
            self._same(_END)
        self._parted = False

    def _same(self, code: int) -> bool:
        """Return whether all ranks go on with the exchange ``code``.

        If not, none goes on, and none asks again before its :meth:`end_run`.
        """
        low_high = torch.tensor([code, -code])
        dist.all_reduce(low_high, dist.ReduceOp.MIN, self._group)
        low, high = low_high.tolist()
        self._parted = low != -high or low == _END
        return not self._parted

    def gather(self, value: _T) -> list[_T]:
        """Return the values of all ranks, by rank."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, self._group)
        return values
