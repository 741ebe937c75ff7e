"""Everything that was observed of one loop, as a value that goes from the process of the loop to the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gradparity.check.intended.intended_reference import EVERYTHING, Asked
from gradparity.check.intended.own_ways import OwnWays
from gradparity.check.running.audited import AuditedLoop
from gradparity.check.running.changing_lines import LineRun
from gradparity.check.running.graph_leaks import GraphLeaks
from gradparity.check.running.observe import ObservedLoop
from gradparity.check.running.uncheckable import steps_made
from gradparity.check.updates_and_averages.own_averages import Average


@dataclass(frozen=True)
class Probe:
    """All observations of one loop, from several runs."""

    name: str
    precision: str
    observed: ObservedLoop
    in_fp32: ObservedLoop | None = None
    """The loop in fp32; ``None`` if it did not finish."""
    reference_after: ObservedLoop | None = None
    """The reference, run in the same process right after the loop; ``None`` if it could not even begin."""
    instead: str = ""
    """A predicate on what the loop trains instead of what it was given; empty if it trains that."""
    uncheckable: str = ""
    """A predicate: the reason why the loop cannot be checked for more than one fault; empty if it can."""
    graphs: GraphLeaks = field(default_factory=GraphLeaks)
    """The graphs that it was observed to keep."""
    oracle: float | None = None
    """The relative error of its first gradient, by :mod:`gradparity.check.running.float64_reference`."""
    left: Sequence[str] = ()
    """Process-wide settings that it changed and did not restore."""
    hooks: Sequence[str] = ()
    """Modules, parameters and optimizers on which it left hooks."""
    asked: Asked = EVERYTHING
    """Everything that it asks for, by which it says what it means."""
    own_models: Mapping[str, str] = field(default_factory=dict)
    """The class of each model in a variable of the loop, other than the given one, by name: they are not compared."""
    audit: AuditedLoop = AuditedLoop()  # noqa: RUF009  # it is frozen
    """Everything that an audit has seen of it; nothing if it did not finish."""
    found_precision: bool = False
    """True if the precision was chosen by what the loop takes and reads."""
    lines: Sequence[LineRun] = ()
    """Its lines as they ran, if it finished and is not the plain reference."""
    also: str = ""
    """A predicate on another model that it trains, on which its loss may depend; empty if there is none."""
    averages: Sequence[Average] = ()
    """The averages of the weights that it keeps."""
    ways: OwnWays = OwnWays()  # noqa: RUF009  # it is frozen
    """The things that it may do by intent and the reference does not."""
    never_taken: Sequence[int] = ()
    """The indices of the batches that it never trains on."""
    compiles: bool = False
    """True if the loop asked for a compiler; it ran without."""

    @property
    def trains(self) -> bool:
        """Return whether the loop trains the given model, with the given optimizer or without."""
        return bool(steps_made(self.observed) or self.asked.trains_elsewhere)

    @property
    def wrong_average(self) -> str:
        """Return a predicate on an average that does not follow the weights as it should; empty if all do."""
        return next((average.wrong for average in self.averages if average.wrong), "")
