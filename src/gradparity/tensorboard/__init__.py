"""TensorBoard logs of a comparison, and the JSONL file beside them with the exact figures.

Read in this order: ``board`` (what is written, and when), ``layout`` (names of runs and tags), ``divergence_map`` and
``map_picture`` (the map) with ``mpl_style``, ``first_difference`` (the page that opens first), ``pages`` (tables),
``events`` (files that survive a kill), ``folders``.
"""

from gradparity.tensorboard.board import FIGURES_FILE, Board, comparison_record
from gradparity.tensorboard.folders import exclusive_lock, new_folder, tensorboard_command
from gradparity.tensorboard.pages import table_page

__all__ = [
    "FIGURES_FILE",
    "Board",
    "comparison_record",
    "exclusive_lock",
    "new_folder",
    "table_page",
    "tensorboard_command",
]
