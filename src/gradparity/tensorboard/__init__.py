"""Everything that is written for TensorBoard, and the JSONL file beside it that has the exact figures.

Read in this order: ``board`` (what is written when), ``layout`` (where TensorBoard shows it), ``divergence_map`` and
``picture`` (the map), ``first_difference`` (the page that opens first), ``pages`` (tables), ``events`` (files that
outlive their process), ``folders``.
"""

from gradparity.tensorboard.board import FIGURES, Board, Found, as_record
from gradparity.tensorboard.folders import alone_in, new_folder, tensorboard_command
from gradparity.tensorboard.pages import page_of, write_pages

__all__ = [
    "FIGURES",
    "Board",
    "Found",
    "alone_in",
    "as_record",
    "new_folder",
    "page_of",
    "tensorboard_command",
    "write_pages",
]
