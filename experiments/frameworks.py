"""Do popular frameworks make the updates of the reference step, bit for bit?

You will see framework × scenario, each with the loop of its documentation, watched on one rank and again on two.
A ✓ means bit for bit at every phase of every step on every rank; the number after a ✗ is that of its cause below.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

import torch
from rich.console import Console

from gradparity.cli.choose_by_name import add_choice, choose
from gradparity.errors import UserError
from gradparity.studies import experiment
from gradparity.studies.experiment import Finished
from gradparity.studies.frameworks.on_ranks import ON_RANKS, outcomes_on_ranks
from gradparity.studies.frameworks.result import frameworks_result
from gradparity.studies.frameworks.scenario import RANK_SCENARIOS, SCENARIOS
from gradparity.studies.frameworks.watch import FRAMEWORKS, FrameworkOutcome, framework_outcome
from gradparity.tensorboard import new_folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("frameworks", __doc__)
    add_choice(parser, "--only", "; ".join({**FRAMEWORKS, **ON_RANKS}))
    add_choice(parser, "--scenario", "; ".join({**SCENARIOS, **RANK_SCENARIOS}))
    return experiment.run("frameworks", partial(parser.parse_args, arguments), frameworks)


def frameworks(given: Namespace, console: Console) -> Finished:
    names = choose("--only", given.only, {**FRAMEWORKS, **ON_RANKS})
    scenarios = choose("--scenario", given.scenario, {**SCENARIOS, **RANK_SCENARIOS})
    alone = [name for name in names if name in FRAMEWORKS], [name for name in scenarios if name in SCENARIOS]
    on_ranks = [name for name in names if name in ON_RANKS], [name for name in scenarios if name in RANK_SCENARIOS]
    if not all(alone) and not all(on_ranks):
        known = [*(SCENARIOS if alone[0] else ()), *(RANK_SCENARIOS if on_ranks[0] else ())]
        raise UserError(f"--scenario names none that {', '.join(names)} can run; choose from {'; '.join(known)}")
    folder = new_folder(given.output / "frameworks")
    torch.set_num_threads(1)
    tables: dict[str, dict[str, dict[str, FrameworkOutcome]]] = {}
    if all(alone):
        with experiment.progress(given.quiet) as progress:
            tables["one rank"] = {
                scenario: {name: framework_outcome(FRAMEWORKS[name], SCENARIOS[scenario]) for name in alone[0]}
                for scenario in progress.track(alone[1], description="scenarios")
            }
    if all(on_ranks):
        tables["two ranks"] = outcomes_on_ranks(*on_ranks)
    return Finished(frameworks_result(tables), folder)


if __name__ == "__main__":
    raise SystemExit(main())
