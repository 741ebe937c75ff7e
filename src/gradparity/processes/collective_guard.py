"""All ranks go on with a run of the reference, or none does.

Who has seen enough of a faulty loop on one rank gives it up; the others would wait for it in their next exchange. So
before each exchange all tell what they are about to do, and go on only if all are about to do the same.
"""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from gradparity.training.exchange import average, share, total

T = TypeVar("T")

EXCHANGES: Mapping[str, Callable[..., Any]] = {"total": total, "share": share, "average": average}
"""All that the reference calls, by the names under which it does."""

END = 0


class PartedError(RuntimeError):
    """The ranks are not about to make the same exchange."""


class Together:
    """Keeps the ranks together, over a process group of its own, so that nothing else is disturbed."""

    def __init__(self) -> None:
        """Collective, as all of it."""
        self._group = dist.new_group()
        self._parted = False

    def guard(self, names: MutableMapping[str, Any]) -> None:
        """Let the reference whose functions are ``names`` make no exchange that not all ranks are about to make."""
        for code, (name, exchange) in enumerate(EXCHANGES.items(), start=END + 1):
            names[name] = self._guarded(code, exchange)

    def _guarded(self, code: int, exchange: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._parted or not self._same(code):
                raise PartedError("the ranks have parted")
            return exchange(*args, **kwargs)

        return guarded

    def end(self) -> None:
        """To be called by every rank after its run of the reference, however that ended."""
        if not self._parted:
            self._same(END)
        self._parted = False

    def _same(self, code: int) -> bool:
        """Whether all ranks go on, with the exchange ``code``; else none does, and none asks again before its end."""
        low_high = torch.tensor([code, -code])
        dist.all_reduce(low_high, dist.ReduceOp.MIN, self._group)
        low, high = low_high.tolist()
        self._parted = low != -high or low == END
        return not self._parted

    def gathered(self, value: T) -> list[T]:
        """What each rank has."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, self._group)
        return values
