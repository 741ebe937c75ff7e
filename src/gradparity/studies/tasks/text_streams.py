"""Models of running text: recurrent ones trained by truncated backpropagation through time, and a sparse one."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torchmetrics.text import Perplexity

from gradparity.parity.batch import PADDING, Batch, Examples
from gradparity.studies.tasks.task import Task
from gradparity.studies.tasks.text import ALPHABET, paragraphs

CHUNK = 16


class Recurrent(nn.Module):
    """A GRU or LSTM over characters. Its state passes from one microbatch to the next; gradients do not."""

    def __init__(self, cell: type[nn.GRU] | type[nn.LSTM], width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), width)
        self.cell = cell(width, width, batch_first=True)
        self.head = nn.Linear(width, len(ALPHABET))
        self.parts = 2 if cell is nn.LSTM else 1
        self.state = torch.zeros(self.parts, 1, 0, width)

    def get_extra_state(self) -> Tensor:
        """Return the state for a checkpoint. It is not a buffer, as the shape of a buffer would be fixed."""
        return self.state

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the state from a checkpoint."""
        self.state = state

    def forward(self, tokens: Tensor) -> Tensor:
        """Map indices ``[N, T]`` to logits ``[N, T, len(ALPHABET)]``. Evaluation starts at zero and keeps nothing."""
        embedded = self.embedding(tokens)
        state = self.state
        if not self.training or state.shape[2] != len(tokens):
            state = embedded.new_zeros(self.parts, 1, len(tokens), embedded.shape[2])
        output, new = self.cell(embedded, tuple(state) if self.parts == 2 else state[0])
        if self.training:
            # Detached and assigned back: backpropagation through time ends here.
            self.state = torch.stack(new if self.parts == 2 else [new]).detach().to(embedded.dtype)
        logits: Tensor = self.head(output)
        return logits


class Bigrams(nn.Module):
    """An embedding with a sparse gradient, and an output layer that is frozen, as its gradient would be dense."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.table = nn.Embedding(len(ALPHABET), width, sparse=True)
        self.head = nn.Linear(width, len(ALPHABET)).requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map indices ``[N, T]`` to logits ``[N, T, len(ALPHABET)]``."""
        logits: Tensor = self.head(self.table(tokens))
        return logits


def consecutive(examples: Examples, batch_size: int, order: torch.Generator) -> Iterator[Batch]:
    """Yield microbatches of equal size, in which row j continues where row j of the previous one stopped."""
    stride = len(examples.inputs) // batch_size
    for first in range(stride):
        rows = slice(first, stride * batch_size, stride)
        yield Examples(examples.inputs[rows], examples.targets[rows])


def stream_task(build: Callable[[], nn.Module]) -> Task:
    """Return the book of :mod:`gradparity.studies.tasks.text` as one stream, in chunks of :data:`CHUNK` characters.

    The last tenth is held out, except for chunks that also occur before it.
    """
    text = " ".join(paragraphs())
    codes = torch.tensor([max(ALPHABET.find(c), 0) for c in text])
    chunks = (len(codes) - 1) // CHUNK
    inputs, targets = (codes[i : i + chunks * CHUNK].view(chunks, CHUNK) for i in (0, 1))
    cut = chunks * 9 // 10
    seen = {tuple(chunk) for chunk in inputs[:cut].tolist()}
    new = torch.tensor([tuple(chunk) not in seen for chunk in inputs[cut:].tolist()])
    return Task(
        build=build,
        train=Examples(inputs[:cut], targets[:cut]),
        held_out=Examples(inputs[cut:][new], targets[cut:][new]),
        metric=lambda: Perplexity(ignore_index=PADDING),
        metric_name="perplexity",
        batches=consecutive,
    )
