"""Small models on real data that comes with scikit-learn and this package; nothing is downloaded."""

from collections.abc import Callable
from functools import partial

from torch import nn

from gradparity.parity.batch import Batch, Examples, count, summed_loss
from gradparity.studies.tasks import special_models, text_streams
from gradparity.studies.tasks.digits import digits_cnn, digits_mlp, digits_task, mlp
from gradparity.studies.tasks.gan import gan_task
from gradparity.studies.tasks.task import Task, held_out_metric, move_examples, shuffled
from gradparity.studies.tasks.text import text_transformer

TASKS: dict[str, Callable[[], Task]] = {
    "digits_mlp": digits_mlp,
    "digits_cnn": digits_cnn,
    "transformer": text_transformer,
    "gru": partial(text_streams.stream_task, partial(text_streams.Recurrent, nn.GRU)),
    "lstm": partial(text_streams.stream_task, partial(text_streams.Recurrent, nn.LSTM)),
    "branches": partial(digits_task, special_models.Branches),
    "additive": partial(digits_task, special_models.Additive),
    "matrices": partial(digits_task, special_models.matrices),
    "checkpointed": partial(digits_task, partial(special_models.Checkpointed, use_reentrant=False)),
    "channels_last": partial(digits_task, special_models.channels_last),
    "compiled": partial(digits_task, special_models.Compiled),
    "penalty": partial(digits_task, mlp, special_models.penalized_loss),
}

RESTRICTED_TASKS: dict[str, Callable[[], Task]] = {
    "sparse": partial(text_streams.stream_task, text_streams.Bigrams),
    "gan": gan_task,
    "reentrant": partial(digits_task, partial(special_models.Checkpointed, use_reentrant=True)),
}
"""Tasks that not every optimizer, step or route can train; ``studies/matrix`` knows which can."""

__all__ = [
    "RESTRICTED_TASKS",
    "TASKS",
    "Batch",
    "Examples",
    "Task",
    "count",
    "held_out_metric",
    "move_examples",
    "shuffled",
    "summed_loss",
]
