"""How fast bits are compared and hashed, against how fast this machine can read them at all."""

from collections.abc import Callable

import torch

from gradparity.benchmark.clock import Spread, in_turn, spread, timed
from gradparity.parity.bits import bits, same_bits
from gradparity.trace.fingerprint import fingerprint

READ = "read: sum"


def throughputs(megabytes: int, rounds: int, tick: Callable[[], object]) -> dict[str, Spread]:
    """GB/s of tensor content, by what is done with it, from main memory; of a comparison both sides count."""
    a = torch.randn(megabytes * 1_000_000 // 4)
    b = a.clone()
    pairs = {
        READ: lambda: (a.sum(), b.sum()),
        "same_bits": lambda: same_bits(a, b),
        "torch.equal of floats": lambda: torch.equal(a, b),
        "torch.equal of int32": lambda: torch.equal(bits(a), bits(b)),
        "fingerprint": lambda: (fingerprint(a), fingerprint(b)),
        "assert_close": lambda: torch.testing.assert_close(a, b, rtol=0, atol=0),
    }
    seconds = in_turn({name: timed(work) for name, work in pairs.items()}, rounds, tick)
    return {name: spread([(a.nbytes + b.nbytes) / one / 1e9 for one in found]) for name, found in seconds.items()}
