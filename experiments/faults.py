"""Which wrong training loops are noticed, and told by name, here and by other libraries?

You will see, by theme, how many faults diverge from the reference, are named, and first show where they should.
Who compares a loop with itself, after a resume or on a full batch, cannot see what is wrong both times.
"""

import json
import sys
import time
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from gradparity import board
from gradparity.arguments import Parser, exits
from gradparity.board.events import Events
from gradparity.distributed.faults import RANK_FAULTS
from gradparity.errors import writing
from gradparity.faults.dictionary import THEMES
from gradparity.peers.scores import PEERS, Score, installed, score
from gradparity.peers.scores_on_ranks import scores_on_ranks
from gradparity.peers.table import as_json, indistinguishable, markdown, sentence, table

RANKS = "several ranks"
"""The theme whose faults are seen on two ranks, in processes that are started for it."""


@exits("faults")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="themes or faults, or beginnings: --only clipping,zero-grad")
    parser.add_argument("--all", action="store_true", help="a row for each fault")
    parser.add_argument(
        "--no-peers", action="store_true", help="do not ask other libraries, which takes most of the time"
    )
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for TensorBoard files and JSON")
    given = parser.parse_args(arguments)
    beginnings = tuple(word.strip().lower() for word in given.only.split(","))
    themes = {
        theme: [fault for fault in faults if theme.startswith(beginnings) or fault.name.startswith(beginnings)]
        for theme, faults in THEMES.items()
    }
    of_ranks = [name for name in RANK_FAULTS if RANKS.startswith(beginnings) or name.startswith(beginnings)]
    if not any(themes.values()) and not of_ranks:
        parser.error(f"--only: choose from {', '.join(THEMES)}, {RANKS}, or name faults")
    folder = board.new_folder(given.output / "faults")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what PyTorch warns of in wrong loops
    began = time.perf_counter()
    console = Console(highlight=False)
    ask = {} if given.no_peers else installed()
    right = {peer: answers(None) for peer, answers in ask.items()}
    chosen = [(theme, fault) for theme, faults in themes.items() for fault in faults]
    scores: dict[str, list[Score]] = {theme: [] for theme, faults in themes.items() if faults}
    for theme, fault in track(chosen, "Training", console=Console(stderr=True), disable=not sys.stderr.isatty()):
        scores[theme].append(score(fault, ask))

    scores |= {RANKS: scores_on_ranks(of_ranks, ask)} if of_ranks else {}

    columns = [] if given.no_peers else list(PEERS)
    everything = [one for group in scores.values() for one in group]
    console.print(table({one.fault.name: [one] for one in everything} if given.all else scores, columns))
    for same in indistinguishable(everything):
        console.print(
            f"Bit for bit the same, so that no check can tell them apart here: {', '.join(same)}.", soft_wrap=True
        )
    if missing := [peer for peer in columns if peer not in ask]:
        console.print(f"{' and '.join(missing)}: not installed (pip install 'gradparity\\[peers]').", soft_wrap=True)
    told = sentence(everything, right)
    console.print(f"\n[bold]{told}[/] In {time.perf_counter() - began:.0f} seconds.", soft_wrap=True)

    with writing(folder / "faults.json"):
        (folder / "faults.json").write_text(json.dumps(as_json(scores, right), indent=1))
    with Events(folder) as writer:
        writer.add_text("faults/1 table", f"{markdown(scores, columns)}\n\n{told}")
    console.print(f"{board.tensorboard_command(folder)}   # then open: Text, faults/1 table", soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
