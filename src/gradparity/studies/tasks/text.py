"""Characters of English prose: "Alice's Adventures in Wonderland", which the package carries in ``alice.txt``.

Lewis Carroll's book of 1865 is in the public domain. The file belongs to the package, so the text is the same under
every version of Python.

The model has what makes gradients interesting: dropout (random draws), an output layer tied to the embedding (one
weight used twice), two position tables that are used only as their sum (one gradient for two parameters), and
padding (a different token count in every microbatch).
"""

import math
from importlib.resources import files

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.text import Perplexity

from gradparity.parity.batch import PADDING, Examples
from gradparity.studies.tasks.task import Task

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
CONTEXT = 64


class Block(nn.Module):
    """Causal self-attention and an MLP, each behind a LayerNorm and added to the stream ``[N, T, width]``."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, T, width]`` to ``[N, T, width]``."""
        n, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.out(attended.transpose(1, 2).reshape(n, t, width)))
        transformed: Tensor = self.dropout(self.mlp(self.norm2(x)))
        return x + transformed


class CharTransformer(nn.Module):
    """A GPT over characters: ``[N, T]`` indices → ``[N, T, len(ALPHABET)]`` logits, T at most ``CONTEXT``."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.token = nn.Embedding(len(ALPHABET), width)
        # One table starts as sinusoids, the other learns a correction to them, as long-context models keep the
        # old positions beside the new ones. Only their sum is used: autograd.grad returns one tensor for both.
        self.position = nn.Parameter(sinusoids(CONTEXT, width))
        self.position_correction = nn.Parameter(torch.zeros(CONTEXT, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(ALPHABET), bias=False)
        nn.init.normal_(self.token.weight, std=0.02)
        self.head.weight = self.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Map indices ``[N, T]`` to logits ``[N, T, len(ALPHABET)]``."""
        positions = (self.position + self.position_correction)[: tokens.shape[1]]
        x = self.dropout(self.token(tokens) + positions)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def sinusoids(length: int, width: int) -> Tensor:
    """Return position encodings ``[length, width]`` (https://arxiv.org/abs/1706.03762), as small as the embedding."""
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angle = torch.arange(length).unsqueeze(1) * frequency
    return 0.02 * torch.cat((angle.sin(), angle.cos()), dim=1)


def paragraphs() -> list[str]:
    """Return the paragraphs of the book, each as one line, chapter headings among them."""
    text = files("gradparity.studies.tasks").joinpath("alice.txt").read_text(encoding="ascii")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def text_transformer() -> Task:
    """Return the task of predicting the next character.

    Every eighth paragraph is held out, except for pieces that also occur in the others.
    """
    texts = paragraphs()
    trained = _pieces([text for i, text in enumerate(texts) if i % 8])
    seen = set(trained)
    return Task(
        build=CharTransformer,
        train=_examples(trained),
        held_out=_examples([piece for piece in _pieces(texts[::8]) if piece not in seen]),
        metric=lambda: Perplexity(ignore_index=PADDING),
        metric_name="perplexity",
    )


def _pieces(texts: list[str]) -> list[str]:
    """Return the paragraphs in ``texts``, cut where they are longer than the context."""
    return [text[i : i + CONTEXT] for text in texts for i in range(0, len(text), CONTEXT)]


def _examples(pieces: list[str]) -> Examples:
    """Return examples: each character is an input and the next one its target; a piece below the context is padded."""
    inputs = torch.zeros(len(pieces), CONTEXT, dtype=torch.long)
    targets = torch.full((len(pieces), CONTEXT), PADDING)
    for row, piece in enumerate(pieces):
        codes = torch.tensor([max(ALPHABET.find(c), 0) for c in "\n" + piece])
        inputs[row, : len(piece)] = codes[:-1]
        targets[row, : len(piece)] = codes[1:]
    return Examples(inputs, targets)
