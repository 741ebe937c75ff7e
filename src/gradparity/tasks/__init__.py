"""Small real models with real data that needs no download, one file each."""

from collections.abc import Callable

from gradparity.tasks.digits import digits_cnn, digits_mlp
from gradparity.tasks.peculiar import PECULIAR
from gradparity.tasks.streams import STREAMS
from gradparity.tasks.task import Batch, Examples, Task, count, evaluate, shuffled, summed_loss, to
from gradparity.tasks.text import text_transformer

TASKS: dict[str, Callable[[], Task]] = {
    "digits_mlp": digits_mlp,
    "digits_cnn": digits_cnn,
    "transformer": text_transformer,
    **PECULIAR,
    **STREAMS,
}

__all__ = ["TASKS", "Batch", "Examples", "Task", "count", "evaluate", "shuffled", "summed_loss", "to"]
