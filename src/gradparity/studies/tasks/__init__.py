"""Small models on real data that comes with scikit-learn and this package; nothing is downloaded."""

from collections.abc import Callable
from functools import partial

from torch import nn

from gradparity.parity.batch import Batch, Examples, count, summed_loss
from gradparity.studies.tasks import peculiar, streams
from gradparity.studies.tasks.digits import digits_cnn, digits_mlp, digits_task, mlp
from gradparity.studies.tasks.gan import gan_task
from gradparity.studies.tasks.task import Task, evaluate, shuffled, to
from gradparity.studies.tasks.text import text_transformer

TASKS: dict[str, Callable[[], Task]] = {
    "digits_mlp": digits_mlp,
    "digits_cnn": digits_cnn,
    "transformer": text_transformer,
    "gru": partial(streams.stream_task, partial(streams.Recurrent, nn.GRU)),
    "lstm": partial(streams.stream_task, partial(streams.Recurrent, nn.LSTM)),
    "branches": partial(digits_task, peculiar.Branches),
    "additive": partial(digits_task, peculiar.Additive),
    "matrices": partial(digits_task, peculiar.matrices),
    "checkpointed": partial(digits_task, partial(peculiar.Checkpointed, use_reentrant=False)),
    "channels_last": partial(digits_task, peculiar.channels_last),
    "compiled": partial(digits_task, peculiar.Compiled),
    "penalty": partial(digits_task, mlp, peculiar.penalized_loss),
}

DEMANDING: dict[str, Callable[[], Task]] = {
    "sparse": partial(streams.stream_task, streams.Bigrams),
    "gan": gan_task,
    "reentrant": partial(digits_task, partial(peculiar.Checkpointed, use_reentrant=True)),
}
"""Tasks that not every optimizer, step or route can train; ``studies/matrix`` knows which can."""

__all__ = ["DEMANDING", "TASKS", "Batch", "Examples", "Task", "count", "evaluate", "shuffled", "summed_loss", "to"]
