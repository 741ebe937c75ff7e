"""TensorBoard logs of a comparison, and the JSONL file beside them with the exact figures.

Read in this order: ``board`` (what is written, and when), ``layout`` (names of runs and tags), ``divergence_map`` and
``picture`` (the map), ``first_difference`` (the page that opens first), ``pages`` (tables), ``events`` (files that
survive a kill), ``folders``.
"""

from gradparity.tensorboard.board import FIGURES, Board, as_record
from gradparity.tensorboard.folders import alone_in, new_folder, tensorboard_command
from gradparity.tensorboard.pages import page_of

__all__ = [
    "FIGURES",
    "Board",
    "alone_in",
    "as_record",
    "new_folder",
    "page_of",
    "tensorboard_command",
]
