"""The loops that can train on several ranks, on two of them; every rank is compared with the step with DDP.

The ranks are started by :func:`gradparity.processes.launch` in place of torchrun, with the environment variables
that torchrun sets. Each framework finds these by itself, and uses the process group that exists already.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gradparity.processes.launch import launch
from gradparity.studies.frameworks.reference import by_examples, by_microbatches, by_shuffled_examples
from gradparity.studies.frameworks.scenario import RANK_SCENARIOS, UNSHUFFLED
from gradparity.studies.frameworks.watch import (
    FRAMEWORKS,
    Framework,
    FrameworkLoop,
    FrameworkOutcome,
    framework_outcome,
)
from gradparity.trace.process_rank import this_rank, world_size
from gradparity.trace.ranks import first_apart, first_to_differ

RANKS = 2
"""Two, as the sum of two gradients is the same in either order: a correct average has the bits of the reference."""


@dataclass(frozen=True)
class OnRanks:
    """A loop, and the reference that distributes the data to ranks in the same way."""

    framework: Framework
    reference: FrameworkLoop
    in_order: FrameworkLoop | None = None
    """The reference without shuffling, for a framework that shuffles unasked."""

    def against(self, scenario: str) -> FrameworkLoop:
        """Return the reference of the loop in ``scenario``."""
        return self.in_order if self.in_order and scenario == UNSHUFFLED else self.reference


def _lightning(loop: Framework) -> OnRanks:
    return OnRanks(loop, by_shuffled_examples, by_examples)


ON_RANKS = {
    "Lightning, automatic": _lightning(FRAMEWORKS["Lightning, automatic"]),
    "Lightning, manual": _lightning(FRAMEWORKS["Lightning, manual"]),
    "Lightning, toggle_model": _lightning(Framework("lightning", "lightning_on_ranks", "toggled")),
    "Lightning, autograd": _lightning(Framework("lightning", "lightning_on_ranks", "by_autograd_grad")),
    "Lightning, averaged": _lightning(Framework("lightning", "lightning_on_ranks", "averaged")),
    "Fabric": OnRanks(FRAMEWORKS["Fabric"], by_examples),
    "Accelerate": OnRanks(FRAMEWORKS["Accelerate"], by_microbatches),
    "Accelerate, token count": OnRanks(FRAMEWORKS["Accelerate, token count"], by_microbatches),
    "transformers": OnRanks(FRAMEWORKS["transformers"], by_microbatches),
}


def outcomes_on_ranks(frameworks: Sequence[str], scenarios: Sequence[str]) -> dict[str, dict[str, FrameworkOutcome]]:
    """Return the outcome of each framework in each scenario, by scenario and then by framework.

    Raises:
        UserError: if a rank dies, hangs, or does not do what the others do.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = launch(of_this_rank, RANKS, frameworks, scenarios, folder, seconds=600, patience=60)
    return {
        scenario: {name: of_all_ranks([cells[scenario, name] for cells in found]) for name in frameworks}
        for scenario in scenarios
    }


def of_this_rank(
    frameworks: Sequence[str], scenarios: Sequence[str], folder: str
) -> Mapping[tuple[str, str], FrameworkOutcome]:
    """Return each outcome on this rank, by scenario and framework. Files go to ``folder``."""
    os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(this_rank()))
    os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(world_size()))
    # Nothing connects to port 0: the process group exists already.
    os.environ |= {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"}
    tempfile.tempdir = folder  # a rank ends without removing its temporary files
    return {
        (scenario, name): framework_outcome(
            ON_RANKS[name].framework, RANK_SCENARIOS[scenario], ON_RANKS[name].against(scenario)
        )
        for name in frameworks
        for scenario in scenarios
    }


def of_all_ranks(outcomes: Sequence[FrameworkOutcome]) -> FrameworkOutcome:
    """Return the outcome of the rank that differs first; a rank without a verdict comes before all others.

    It names the ranks that differ there, and the first step after which the ranks have different parameters.
    """
    traces = [each.trace for each in outcomes if each.trace]
    verdicts = [each.verdict for each in outcomes if each.verdict]
    if len(verdicts) < len(outcomes):
        return next(each for each in outcomes if each.verdict is None)
    apart = first_apart(traces)
    differing = tuple(first_to_differ(verdicts)) or tuple(range(len(verdicts)))
    return replace(
        outcomes[differing[0]],
        trace=None,
        ranks=differing if len(differing) < len(outcomes) else (),
        apart=apart[0] if apart else None,
    )
