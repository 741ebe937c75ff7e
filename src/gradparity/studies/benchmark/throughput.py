"""The speed of comparing and hashing bits, against the speed at which this machine can read them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import xxhash
from matplotlib.figure import Figure
from rich.table import Table

from gradparity.parity.bits import bits, same_bits
from gradparity.studies.benchmark.clock import Spread, in_turn, ratio, spread, timed
from gradparity.studies.benchmark.presentation import (
    BLUE,
    GREEN,
    Bar,
    cost_table,
    draw_spreads,
    median_and_quartiles,
    panels_with,
    part_result,
)
from gradparity.studies.result import Result
from gradparity.trace.late_fingerprints import fingerprint

READ, COMPARED, HASHED = "read (sum)", "same_bits", "fingerprint"
MEGABYTES = 200
"""Size of each side: more than caches hold, so that main memory is the limit."""
_WHY = "A comparison reads both sides once, eight bytes at a time; a fingerprint reads once to hash, once for a norm."


@dataclass(frozen=True)
class Throughput:
    """One operation on tensor content, and its speed."""

    what: str
    speed: Spread
    """GB/s; for a comparison, both sides count."""
    of_limit: Spread
    """Speed over that of reading in the same round."""


def measure_throughput(full: bool, rounds: int, bar: Bar) -> Result:
    """Measure comparing and hashing, against reading."""
    found = throughputs(MEGABYTES, 3 * rounds, bar("throughput", 3 * rounds))
    return part_result("throughput", _sentence(found), _WHY, [_table(found)], _figure(found), found)


def throughputs(megabytes: int, rounds: int, tick: Callable[[], object]) -> list[Throughput]:
    """Measure each operation on two tensors of ``megabytes`` each."""
    a = torch.randn(megabytes * 1_000_000 // 4)
    b = a.clone()
    works: Mapping[str, Callable[[], object]] = {
        READ: lambda: (a.sum(), b.sum()),
        COMPARED: lambda: same_bits(a, b),
        "torch.equal": lambda: torch.equal(a, b),
        "assert_close": lambda: torch.testing.assert_close(a, b, rtol=0, atol=0),
        "XXH3, the library alone": lambda: [xxhash.xxh3_128_digest(bits(t).numpy().data) for t in (a, b)],
        "norm": lambda: [torch.linalg.vector_norm(t) for t in (a, b)],
        HASHED: lambda: (fingerprint(a), fingerprint(b)),
    }
    seconds = in_turn([timed(name, work) for name, work in works.items()], rounds, tick)
    gigabytes = (a.nbytes + b.nbytes) / 1e9
    return [
        Throughput(name, spread([gigabytes / one for one in found]), ratio(seconds[READ], found))
        for name, found in seconds.items()
    ]


def _sentence(found: list[Throughput]) -> str:
    """Return the result in one sentence."""
    of_limit = {one.what: one.of_limit.median for one in found}
    return (
        f"Bits are compared at {of_limit[COMPARED]:.0%} of the speed at which memory is read, and hashed, with a norm, "
        f"at {of_limit[HASHED]:.0%}: hash and norm read it once each."
    )


def _table(found: Sequence[Throughput]) -> Table:
    """Tabulate speeds, and each of them over the speed of reading."""
    table = cost_table("Reading main memory", "", "GB/s", "times the speed of reading")
    for one in found:
        table.add_row(one.what, median_and_quartiles(one.speed, 1), median_and_quartiles(one.of_limit))
    return table


def _figure(found: Sequence[Throughput]) -> Figure:
    """Draw the speeds beside the limit."""
    made, (axes,) = panels_with("Reading main memory, GB/s", 1)
    draw_spreads(axes, [one.what for one in found], [one.speed for one in found], [BLUE] * len(found))
    axes.axvline(0.7 * found[0].speed.median, color=GREEN, linestyle="dashed", label="70% of reading")
    axes.set_xlim(0)
    axes.legend(frameon=False, loc="lower right")
    return made
