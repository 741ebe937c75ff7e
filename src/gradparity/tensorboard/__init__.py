"""What people look at: TensorBoard files of a lockstep, and a JSONL file beside them for exact figures.

In reading order: ``board`` (what is written when), ``layout`` (where TensorBoard shows it), ``spread`` and ``picture``
(the divergence map), ``card`` (the first difference on a page), ``pages`` (tables), ``events`` (files that outlive
their process), ``folders``.
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
