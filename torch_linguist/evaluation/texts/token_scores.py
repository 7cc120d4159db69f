"""Surprisal by token and by word, for studies of reading times and of single words.

Shape legend: B batch, T time, V vocabulary, N tokens of a line, K alternatives.
"""

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.texts.batched_reading import Ids
from torch_linguist.evaluation.texts.line_scores import measure_chunks
from torch_linguist.evaluation.words import piece_texts
from torch_linguist.model import LanguageModel, State

LOGITS = 1 << 24
"""Probabilities per batch, B * T * V."""


@dataclass(frozen=True, slots=True)
class TokenScore:
    """Surprisal of a token.

    Attributes:
        line: number of its line, 0-based.
        position: number of the token in its line, 0-based.
        token: entry of the vocabulary.
        start: first character of the token in the original line; the line's length for `<eos>`.
        end: one past its last character.
        surprisal: -log-probability in nats.
        rank: number of tokens that were at least as probable, itself included; 1 for the most probable one.
        entropy: entropy of the predicted distribution, in nats.
        alternatives: most probable tokens with their probabilities, best first.
    """

    line: int
    position: int
    token: str
    start: int
    end: int
    surprisal: float
    rank: int
    entropy: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class WordScore:
    """Surprisal of a word: the sum over its tokens.

    Attributes:
        line: number of its line, 0-based.
        position: number of the word in its line, 0-based.
        word: the word as written, or `<eos>`.
        start: first character of the word in the original line.
        end: one past its last character.
        tokens: number of its tokens.
        surprisal: -log-probability in nats, the sum over these tokens.
        entropy: entropy of the distribution that predicted its first token, in nats.
        unknown: whether one of its tokens is `<unk>`.
    """

    line: int
    position: int
    word: str
    start: int
    end: int
    tokens: int
    surprisal: float
    entropy: float
    unknown: bool


def score_tokens(
    model: LanguageModel,
    tokenizer: Tokenizer,
    lines: Iterable[str],
    *,
    closed: bool = True,
    running: bool = False,
    alternatives: int = 0,
) -> Iterator[list[TokenScore]]:
    """Score every token of lines; see `score_lines` for the arguments that both have.

    Args:
        model: any model.
        tokenizer: tokenizer of the model.
        lines: texts without newlines.
        closed: see `score_lines`.
        running: see `score_lines`.
        alternatives: number of most probable tokens K listed with each token.

    Yields:
        The tokens of each line, in order.

    Raises:
        LinguistError: more alternatives than types, or see `score_lines`.
    """
    if not 0 <= alternatives <= tokenizer.vocab_size:
        raise LinguistError(f"alternatives={alternatives}: must be from 0 to the vocabulary's {tokenizer.vocab_size}")

    def measure(tokens: Tensor, targets: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        logits, new_state = model(tokens, state)
        return _distribution_measures(logits, targets, alternatives), new_state

    names = [text.strip() or text for text in piece_texts(tokenizer)]
    size = max(1, LOGITS // tokenizer.vocab_size)
    number = 0
    for lines_read, tensors in measure_chunks(
        model, tokenizer, lines, measure, closed=closed, running=running, batch_tokens=size
    ):
        end = 0
        for text, length in zip(lines_read.texts, lines_read.lengths.tolist(), strict=True):
            own, end = slice(end, end + length), end + length
            measured = tuple(tensor[own] for tensor in tensors)
            yield _token_scores(number, text, lines_read.ids[own], measured, tokenizer, names) if length else []
            number += 1


def _distribution_measures(logits: Tensor, targets: Tensor, alternatives: int) -> tuple[Tensor, ...]:
    """Return surprisal, rank, entropy [B, T], and ids and log-probabilities [B, T, K] of the most probable tokens."""
    logs = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
    found = logs.gather(-1, targets.unsqueeze(-1))
    rank = (logs >= found).sum(dim=-1)
    # A probability of zero adds nothing to the entropy, though its logarithm is infinite.
    entropy = torch.special.entr(logs.exp()).sum(dim=-1)
    best = torch.topk(logs, alternatives, dim=-1)
    return -found.squeeze(-1).double(), rank, entropy.double(), best.indices, best.values.double()


def _token_scores(
    line: int, text: str, row: Ids, tensors: tuple[Tensor, ...], tokenizer: Tokenizer, names: list[str]
) -> list[TokenScore]:
    surprisals, ranks, entropies, best, logs = (tensor.tolist() for tensor in tensors)
    spans = token_spans(text, row, tokenizer)
    return [
        TokenScore(
            line,
            position,
            tokenizer.tokens[token],
            *spans[position],
            surprisals[position],
            ranks[position],
            entropies[position],
            tuple((names[other], math.exp(log)) for other, log in zip(best[position], logs[position], strict=True)),
        )
        for position, token in enumerate(row.tolist())
    ]


def token_spans(text: str, row: Ids, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Return the place of each token in a line, blanks left out: its first character and one past the last.

    The ids [N] may end with an `<eos>`, which lies at the end of the line.
    """
    spans = [_without_blanks(text, start, end) for start, end in tokenizer.offsets(text)]
    return [*spans, *((len(text), len(text)) for _ in range(len(row) - len(spans)))]


def _without_blanks(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def score_words(
    model: LanguageModel, tokenizer: Tokenizer, lines: Iterable[str], *, closed: bool = True, running: bool = False
) -> Iterator[list[WordScore]]:
    """Score every word of lines, as written between white space; `<eos>` is a word of its own. See `score_lines`."""
    unknown = tokenizer.tokens[tokenizer.unk_id]
    texts, copies = itertools.tee(lines)
    scored = score_tokens(model, tokenizer, copies, closed=closed, running=running)
    for number, (text, tokens) in enumerate(zip(texts, scored, strict=True)):
        words = [match.span() for match in re.finditer(r"\S+", text)]
        yield list(_word_scores(number, text, words, tokens, unknown))


def _word_scores(
    line: int, text: str, words: list[tuple[int, int]], tokens: list[TokenScore], unknown: str
) -> Iterator[WordScore]:
    groups: list[list[TokenScore]] = [[] for _ in words]
    after: list[TokenScore] = []
    place = 0
    for token in tokens:
        # A token of nothing but blanks belongs to the word after it, as the blank of a subword does.
        while place < len(words) and token.start >= words[place][1]:
            place += 1
        (groups[place] if place < len(words) else after).append(token)
    spans = [(text[start:end], start, end, group) for (start, end), group in zip(words, groups, strict=True)]
    if after:
        spans.append((after[-1].token, after[0].start, after[-1].end, after))
    for position, (word, start, end, group) in enumerate(spans):
        entropy = group[0].entropy if group else 0.0
        surprisal = sum(token.surprisal for token in group)
        is_unknown = any(token.token == unknown for token in group)
        yield WordScore(line, position, word, start, end, len(group), surprisal, entropy, is_unknown)
