"""Random streams: each has a seed and a name, and two runs in one process draw from separate streams."""

import ctypes
import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.random import mtrand
from torch import Tensor


def seed_of(seed: int, name: str) -> int:
    """Return a seed of 63 bits for the stream ``name`` of an experiment, unrelated to those of its other streams."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator_states() -> dict[str, Tensor]:
    """Return the state of torch's global generators by device type, uint8; only the current GPU, if CUDA is in use.

    The state is kept on the host, so reading it waits for nothing.
    """
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


class RandomStream:
    """A state of the global generators of torch, NumPy and Python, swapped in while its run advances.

    Dropout draws from torch's global state, and data augmentation from NumPy's or Python's. Two runs that must draw the
    same numbers each need their own stream.

    >>> one, two = RandomStream(7), RandomStream(7)
    >>> with one.active():
    ...     first = torch.rand(3), random.random(), np.random.rand()
    >>> with two.active():
    ...     second = torch.rand(3), random.random(), np.random.rand()
    >>> str(first) == str(second)
    True
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.state: dict[str, Tensor] = {}
        """The generators' states: torch's by device type, uint8; then Python's and NumPy's."""
        self._devices = [torch.cuda.current_device()] if device == "cuda" else []
        self._python = random.Random(seed).getstate()
        self._numpy = np.random.MT19937(seed)
        self.state |= {"python": _of_python(self._python), "numpy": _of_numpy(self._numpy)}
        with torch.random.fork_rng(self._devices):
            # Not `torch.manual_seed`, which takes milliseconds: it keeps a stack trace for each kind of GPU.
            torch.default_generator.manual_seed(seed)
            if self._devices:
                torch.cuda.manual_seed(seed)
            self._save_torch()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream inside the ``with`` block; the state outside is untouched."""
        with torch.random.fork_rng(self._devices), _put_back():
            torch.set_rng_state(self.state["cpu"])
            for device in self._devices:
                torch.cuda.set_rng_state(self.state["cuda"], device)
            random.setstate(self._python)
            mtrand.set_bit_generator(self._numpy)
            yield
            self._save_torch()
            if (python := random.getstate()) != self._python:
                self._python, self.state["python"] = python, _of_python(python)
            self.state["numpy"] = _of_numpy(self._numpy)

    def _save_torch(self) -> None:
        self.state["cpu"] = torch.get_rng_state()
        for device in self._devices:
            self.state["cuda"] = torch.cuda.get_rng_state(device)


@contextmanager
def _put_back() -> Iterator[None]:
    """Leave Python's and NumPy's generators as they were.

    NumPy's generator object is swapped: reading and writing its state takes a hundred times as long. NumPy's old
    functions make normal deviates in pairs; the swap drops the second one of a pair.
    """
    python, numpy = random.getstate(), mtrand.get_bit_generator()
    try:
        yield
    finally:
        random.setstate(python)
        mtrand.set_bit_generator(numpy)


def _of_numpy(generator: np.random.MT19937) -> Tensor:
    """Return the 624 numbers of 32 bits, and the index of the next one, as they lie in memory."""
    return torch.frombuffer(bytearray(ctypes.string_at(generator.ctypes.state_address, 625 * 4)), dtype=torch.uint8)


def _of_python(state: Any) -> Tensor:
    _, numbers, deviate = state
    return torch.tensor([*numbers, *struct.unpack("<II", struct.pack("<d", deviate or 0.0))])
