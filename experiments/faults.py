"""Which wrong training loops does gradparity detect, and name?

You will see, by theme, how many faults diverge from the reference, are named, and first show where they should.
A fault that is named is one whose lines gradparity shows you, with the lines that fix them.
"""

import warnings
from argparse import Namespace
from collections.abc import Sequence
from functools import partial

import torch
from rich.console import Console

from gradparity.cli.choose_by_name import add_choice, choose
from gradparity.faults import FAULTS
from gradparity.faults.all_faults import THEMES
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.studies import experiment
from gradparity.studies.experiment import Finished
from gradparity.studies.fault_scores.result import fault_result
from gradparity.studies.fault_scores.score import Score, score
from gradparity.studies.fault_scores.score_on_ranks import scores_on_ranks
from gradparity.tensorboard import new_folder

RANKS = "several ranks"
"""The theme whose faults are observed on two ranks, in processes that are started for it."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("faults", __doc__)
    add_choice(parser, "--only", f"faults or themes ({', '.join(THEMES)}, {RANKS})")
    parser.add_argument("--all", action="store_true", help="a row for each fault")
    return experiment.run("faults", partial(parser.parse_args, arguments), faults)


def faults(given: Namespace, console: Console) -> Finished:
    names = [*THEMES, RANKS, *FAULTS, *RANK_FAULTS]
    chosen = choose("--only", given.only, names, known=f"{', '.join(THEMES)}, {RANKS}, or name faults")
    folder = new_folder(given.output / "faults")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # PyTorch warns about wrong loops
    alone = [(theme, f) for theme in THEMES for f in THEMES[theme] if theme in chosen or f.name in chosen]
    scores: dict[str, list[Score]] = {theme: [] for theme, _ in alone}
    with experiment.progress(given.quiet) as progress:
        for theme, fault in progress.track(alone, description="faults"):
            scores[theme].append(score(fault))
    if on_ranks := [name for name in RANK_FAULTS if RANKS in chosen or name in chosen]:
        scores[RANKS] = scores_on_ranks(on_ranks)
    return Finished(fault_result(scores, each=given.all), folder)


if __name__ == "__main__":
    raise SystemExit(main())
