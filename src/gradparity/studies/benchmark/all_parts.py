"""The parts of the benchmark, by name."""

from collections.abc import Callable

from gradparity.studies.benchmark.gpu import measure_on_gpu
from gradparity.studies.benchmark.growth import measure_growth
from gradparity.studies.benchmark.presentation import Bar
from gradparity.studies.benchmark.ranks import measure_ranks
from gradparity.studies.benchmark.routes import measure_routes
from gradparity.studies.benchmark.throughput import measure_throughput
from gradparity.studies.benchmark.watching_cost import measure_watching
from gradparity.studies.result import Result

PARTS: dict[str, Callable[[bool, int, Bar], Result]] = {
    "routes": measure_routes,
    "watching": measure_watching,
    "throughput": measure_throughput,
    "growth": measure_growth,
    "ranks": measure_ranks,
    "gpu": measure_on_gpu,
}
"""Each takes whether to measure all sizes, the number of rounds, and a progress bar."""

DEFAULT = ("watching", "throughput")
"""Parts that take less than a minute."""
