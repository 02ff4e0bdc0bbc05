"""Documents: language-like text in which needles (key = value) lie at random depths, and questions at the end.

The text comes from a made-up language: each document has a topic, and a topic is a Markov chain over WORDS words. A
needle is one token that names a key and a value; a question is the key alone, and the answer, the next token, the
value. So a model answers by finding one place in the context, and text and needles are learned side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WORDS, TOPICS, KEYS, VALUES = 32, 8, 32, 16
FIRST_KEY, FIRST_VALUE, FIRST_NEEDLE = WORDS, WORDS + KEYS, WORDS + KEYS + VALUES
SENTENCE = 32  # words of a run of the chain; then it begins anew
VOCABULARY = FIRST_NEEDLE + KEYS * VALUES


@dataclass(frozen=True)
class Documents:
    """Tokens [batch, length]: `body` tokens of text with needles, then question, answer, question, answer, …"""

    tokens: Tensor
    body: int
    places: Tensor  # [batch, pairs] where the needle of each question lies


class Language:
    """The topics' transition probabilities [TOPICS, WORDS, WORDS], drawn once from a seed."""

    def __init__(self, seed: int = 7) -> None:
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randn(TOPICS, WORDS, WORDS, generator=generator) * 2.5
        self.chances = scores.softmax(-1)

    def text(self, batch: int, length: int, generator: torch.Generator) -> Tensor:
        """Words [batch, length] of `batch` documents, each with a random topic, in sentences of SENTENCE words."""
        count = -(-length // SENTENCE)
        topic = torch.randint(TOPICS, (batch,), generator=generator).repeat_interleave(count)
        sums = self.chances.cumsum(-1)
        words = [torch.randint(WORDS, (batch * count,), generator=generator)]
        for draw in torch.rand(SENTENCE - 1, batch * count, 1, generator=generator):
            words.append((sums[topic, words[-1]] < draw).sum(-1).clamp(max=WORDS - 1))
        return torch.stack(words, 1).reshape(batch, -1)[:, :length]


def documents(language: Language, batch: int, length: int, pairs: int, generator: torch.Generator) -> Documents:
    """`batch` documents of `length` tokens with `pairs` needles, one in each of `pairs` equal parts of the text."""
    body = length - 2 * pairs
    tokens = torch.empty(batch, length, dtype=torch.int64)
    tokens[:, :body] = language.text(batch, body, generator)
    keys = torch.rand(batch, KEYS, generator=generator).argsort(1)[:, :pairs]
    values = torch.randint(VALUES, (batch, pairs), generator=generator)
    part = body // pairs
    places = torch.arange(pairs) * part + torch.randint(part, (batch, pairs), generator=generator)
    tokens.scatter_(1, places, FIRST_NEEDLE + keys * VALUES + values)
    order = torch.rand(batch, pairs, generator=generator).argsort(1)
    tokens[:, body::2] = FIRST_KEY + keys.gather(1, order)
    tokens[:, body + 1 :: 2] = FIRST_VALUE + values.gather(1, order)
    return Documents(tokens, body, places.gather(1, order))
