"""What it costs to wire gradients by hand: time and memory of a step, over those of ``.backward()``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from gradparity.benchmark.clock import Spread, in_turn, ratio, timed
from gradparity.benchmark.memory import peak_bytes
from gradparity.benchmark.subjects import mlp, step, subject, transformer
from gradparity.config import PrecisionName

ROUTES = ("backward", "manual", "frugal")
MODELS = {"MLP": (mlp, 32), "transformer": (transformer, 2)}
"""With the size of a microbatch."""
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "bf16")
ACCUMULATION_STEPS = (1, 4)


@dataclass(frozen=True)
class RouteCost:
    """One model, trained by one route."""

    model: str
    millions: float
    """Parameters."""
    precision: str
    k: int
    """Accumulation steps."""
    route: str
    time: Spread
    """Of a step, over that of ``.backward()`` in the same round."""
    peak: float
    """Bytes of a step at their most, beyond parameters and optimizer state, over the bytes of the parameters."""


def route_costs(rounds: int, tick: Callable[[], object]) -> Iterator[RouteCost]:
    """The costs of all models, precisions and accumulation steps."""
    for (name, (task, microbatch)), precision, k in product(MODELS.items(), PRECISIONS, ACCUMULATION_STEPS):
        lanes, window = subject(task(), ROUTES, k=k, microbatch=microbatch, precision=precision)
        ways = {route: timed(step, lane, window) for route, lane in zip(ROUTES, lanes, strict=True)}
        seconds = in_turn(ways, rounds, tick)
        for route, lane in zip(ROUTES, lanes, strict=True):
            lane.run.optimizer.zero_grad()
            size = sum(p.nbytes for p in lane.run.parameters)
            peak = peak_bytes(lambda lane=lane: step(lane, window)) / size
            time = ratio(seconds[route], seconds["backward"])
            yield RouteCost(name, size / 4e6, precision, k, route, time, peak)
