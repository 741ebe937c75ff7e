"""Random streams: every draw has a seed and a name, and two runs in one process do not draw from one stream."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def seed_of(seed: int, name: str) -> int:
    """A seed of 63 bits for the stream ``name`` of an experiment, unrelated to those of its other streams."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator_states() -> dict[str, Tensor]:
    """The state of torch's global generators by device type, uint8; of a GPU only where one is used, the current one.

    It is kept on the host, so that to read it is nothing to wait for.
    """
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


class RandomStream:
    """A state of torch's global generators, swapped in while its run advances.

    Dropout draws from global state. Two runs that are to draw the same masks each bring their own.

    >>> one, two = RandomStream(7), RandomStream(7)
    >>> with one.active():
    ...     first = torch.rand(3)
    >>> with two.active():
    ...     second = torch.rand(3)
    >>> torch.equal(first, second)
    True
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.state: dict[str, Tensor] = {}
        """The generator's state by device type, uint8."""
        self._devices = [torch.cuda.current_device()] if device == "cuda" else []
        with torch.random.fork_rng(self._devices):
            # Not `torch.manual_seed`, which takes milliseconds: it keeps a stack trace for each kind of GPU.
            torch.default_generator.manual_seed(seed)
            if self._devices:
                torch.cuda.manual_seed(seed)
            self._save()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream inside the ``with`` block; the state outside is untouched."""
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self.state["cpu"])
            for device in self._devices:
                torch.cuda.set_rng_state(self.state["cuda"], device)
            yield
            self._save()

    def _save(self) -> None:
        self.state["cpu"] = torch.get_rng_state()
        for device in self._devices:
            self.state["cuda"] = torch.cuda.get_rng_state(device)
