"""Which wrong training loops are noticed, and told by name, here and by other libraries?

You will see, by theme, how many faults diverge from the reference, are named, and first show where they should.
Who compares a loop with itself, after a resume or on a full batch, cannot see what is wrong both times.
"""

import json
import warnings
from argparse import Namespace
from collections.abc import Sequence
from functools import partial

import torch
from rich.console import Console

from gradparity.errors import UserError, writing
from gradparity.faults.all_faults import THEMES
from gradparity.faults.fault import Fault
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.studies import experiment
from gradparity.studies.experiment import Answer, say
from gradparity.studies.peers.scores import PEERS, Score, installed, score
from gradparity.studies.peers.scores_on_ranks import scores_on_ranks
from gradparity.studies.peers.table import as_json, each, indistinguishable, sentence, table
from gradparity.tensorboard import new_folder, page_of, write_pages

RANKS = "several ranks"
"""The theme whose faults are seen on two ranks, in processes that are started for it."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("faults", __doc__)
    parser.add_argument("--only", default="", help="themes or faults, or beginnings: --only clipping,zero-grad")
    parser.add_argument("--all", action="store_true", help="a row for each fault")
    parser.add_argument("--peers", action="store_true", help="ask other libraries too, which takes some minutes")
    return experiment.run("faults", partial(parser.parse_args, arguments), faults)


def faults(given: Namespace, console: Console) -> Answer:
    chosen, of_ranks = named(given.only)
    folder = new_folder(given.output / "faults")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what PyTorch warns of in wrong loops
    ask = installed() if given.peers else {}
    right = {peer: answers(None) for peer, answers in ask.items()}
    scores: dict[str, list[Score]] = {theme: [] for theme, _ in chosen}
    with experiment.progress(given.quiet) as progress:
        for theme, fault in progress.track(chosen, description="faults"):
            scores[theme].append(score(fault, ask))
    if of_ranks:
        scores[RANKS] = scores_on_ranks(of_ranks, ask)

    peers = list(PEERS) if given.peers else []
    everything = [one for group in scores.values() for one in group]
    grid = table({one.fault.name: [one] for one in everything} if given.all else scores, peers)
    console.print(grid)
    for same in indistinguishable(everything):
        say(console, f"Bit for bit the same, so that no check can tell them apart here: {', '.join(same)}.")
    if missing := [peer for peer in peers if peer not in ask]:
        say(console, f"{' and '.join(missing)}: not installed (pip install 'gradparity[peers]').")
    console.print()
    told = sentence(everything, right)
    with writing(folder / "faults.json"):
        (folder / "faults.json").write_text(json.dumps(as_json(scores, right), indent=1))
    write_pages(folder, {"1 answer": f"**{told}**\n\n{page_of(grid)}", "2 each fault": each(scores)})
    return Answer(sentence=told, holds=all(one.diverged and one.named for one in everything), folder=folder)


def named(words: str) -> tuple[list[tuple[str, Fault]], list[str]]:
    """The faults whose name or theme begins with one of ``words``, in the order of the themes; and those of ranks."""
    beginnings = tuple(word.strip().lower() for word in words.split(","))
    found = [
        (theme, fault)
        for theme, faults in THEMES.items()
        for fault in faults
        if theme.startswith(beginnings) or fault.name.startswith(beginnings)
    ]
    of_ranks = [name for name in RANK_FAULTS if RANKS.startswith(beginnings) or name.startswith(beginnings)]
    if not found and not of_ranks:
        raise UserError(f"--only is {words!r}; choose from {', '.join(THEMES)}, {RANKS}, or name faults")
    return found, of_ranks


if __name__ == "__main__":
    raise SystemExit(main())
