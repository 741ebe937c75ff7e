"""The measurements as pictures, black on a white background, so that they look the same on light and dark pages."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradparity.studies.benchmark.clock import Spread
from gradparity.studies.benchmark.growth import Point
from gradparity.studies.benchmark.routes import ROUTES, RouteCost
from gradparity.studies.benchmark.scale import RankCost
from gradparity.studies.benchmark.throughput import Throughput
from gradparity.studies.benchmark.watching import LOCKSTEP, RECORD, WatchingCost

COLORS = {"backward": "#555555", "manual": "#4477aa", "frugal": "#aa7700", LOCKSTEP: "#4477aa", RECORD: "#aa7700"}
AIM = 1.05


def figure(title: str, panels: int) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with ``panels`` panels side by side."""
    made = Figure(figsize=(6.5 * panels, 4.5), dpi=110, facecolor="white", layout="constrained")
    made.suptitle(title)
    axes = list(made.subplots(1, panels, squeeze=False)[0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="x", color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
    return made, axes


def across(axes: Axes, names: Sequence[str], found: Sequence[Spread], colors: Sequence[str]) -> None:
    """Draw a point for each median, from top to bottom, with a line from quartile to quartile."""
    for row, (one, color) in enumerate(zip(found, colors, strict=True)):
        axes.plot([one.low, one.high], [row, row], color=color, linewidth=2)
        axes.plot([one.median], [row], "o", color=color)
        axes.annotate(
            f"{one.median:.3g}", (one.median, row), (0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.7)


def routes(found: Sequence[RouteCost]) -> Figure:
    """Draw time and memory of the routes."""
    made, (time, memory) = figure("Wiring gradients by hand, against .backward()", 2)
    names = [f"{one.model}, {one.precision}, K = {one.k}, {one.route}" for one in found]
    colors = [COLORS[one.route] for one in found]
    shown = [index for index, one in enumerate(found) if one.route != ROUTES[0]]
    across(time, [names[i] for i in shown], [found[i].time for i in shown], [colors[i] for i in shown])
    time.axvline(1, color="black", linewidth=0.8)
    time.set_xlabel("time of a step, times .backward()")
    memory.barh(names, [one.peak for one in found], color=colors)
    memory.tick_params(axis="y", labelsize=8)
    memory.invert_yaxis()
    memory.set_xlabel("most memory, in sizes of the parameters")
    return made


def watching(found: Sequence[WatchingCost]) -> Figure:
    """Draw the ratios on a logarithmic scale, as the ways differ by powers of ten."""
    made, (axes,) = figure("A watched step, times the same unwatched", 1)
    names = [f"{one.way}\n{one.model}" for one in found]
    across(axes, names, [one.time for one in found], [COLORS.get(one.way, "#555555") for one in found])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.axvline(AIM, color="#228833", linewidth=1, linestyle="dashed", label=f"aim: {AIM}")
    axes.legend(frameon=False, loc="upper right")
    return made


def throughput(found: Sequence[Throughput]) -> Figure:
    """Draw the speeds beside the limit."""
    made, (axes,) = figure("Reading main memory, GB/s", 1)
    across(axes, [one.what for one in found], [one.speed for one in found], ["#4477aa"] * len(found))
    axes.axvline(0.7 * found[0].speed.median, color="#228833", linestyle="dashed", label="70% of reading")
    axes.set_xlim(0)
    axes.legend(frameon=False, loc="lower right")
    return made


def growth(by_parameters: Sequence[Point], by_tensors: Sequence[Point]) -> Figure:
    """Draw the time that watching adds, against the size of the model, both on logarithmic scales."""
    made, (left, right) = figure("What watching adds to a step, ms", 2)
    for axes, label, points in ((left, "parameters", by_parameters), (right, "tensors", by_tensors)):
        sizes = [getattr(one, label) for one in points]
        for way in (LOCKSTEP, RECORD):
            axes.plot(sizes, [one.adds[way].median for one in points], "o-", color=COLORS[way], label=way)
        axes.plot(sizes, [one.bare for one in points], "--", color="#999999", label="an unwatched step")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(label)
    left.legend(frameon=False)
    return made


def ranks(found: Sequence[RankCost]) -> Figure:
    """Draw the ratios by the number of ranks."""
    made, (axes,) = figure(
        f"A watched step of {found[0].parameters / 1e6:.0f}M parameters, times the same unwatched", 1
    )
    names = [f"{way}\n{one.ranks} ranks" for way in (LOCKSTEP, RECORD) for one in found]
    pairs = [(way, one.times[way]) for way in (LOCKSTEP, RECORD) for one in found]
    across(axes, names, [time for _, time in pairs], [COLORS[way] for way, _ in pairs])
    axes.axvline(AIM, color="#228833", linewidth=1, linestyle="dashed", label=f"aim: {AIM}")
    axes.legend(frameon=False, loc="lower right")
    return made
