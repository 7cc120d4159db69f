"""A prompt and its continuation while it grows: what has been read, what was drawn, what can be sent.

Shape legend: T time, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_linguist.data import Tokenizer
from torch_linguist.generation import Sampling, TextStream, draw
from torch_linguist.generation.continuation import ContinuationWriter


@dataclass(frozen=True, eq=False)
class Prompt:
    """A text to continue.

    Attributes:
        text: the text as an echo shows it.
        ids: token ids that the model reads; the first one is `<eos>`, the end of the line before.
        offsets: where each token of the text begins in it; one fewer than `ids` unless the client sent the `<eos>`.
    """

    text: str
    ids: list[int]
    offsets: list[int]

    @property
    def size(self) -> int:
        """Number of tokens that the client sent."""
        return len(self.offsets)

    @classmethod
    def of_text(cls, text: str, tokenizer: Tokenizer) -> "Prompt":
        """Return the prompt of a text."""
        offsets: list[int] = []
        begin = 0
        for line in text.split("\n"):
            if begin:
                offsets.append(begin - 1)
            offsets += [begin + start for start, _ in tokenizer.offsets(line)]
            begin += len(line) + 1
        return cls(tokenizer.shown_prompt(text), [tokenizer.eos_id, *tokenizer.encode(text)], offsets)

    @classmethod
    def of_ids(cls, ids: Sequence[int], tokenizer: Tokenizer) -> "Prompt":
        """Return the prompt of token ids, with `<eos>` before them unless they begin with it."""
        stream, text = TextStream(tokenizer), ""
        offsets = []
        for token in ids:
            offsets.append(len(text))
            text += stream.push(token)
        has_eos = bool(ids) and ids[0] == tokenizer.eos_id
        return cls(text + stream.finish(), [*([] if has_eos else [tokenizer.eos_id]), *ids], offsets)


@dataclass(frozen=True)
class TokenScore:
    """A token and its log-probability.

    Attributes:
        token: id of the token.
        offset: where it begins in the text.
        log_prob: log-probability under the model itself; None for a token that nothing predicts.
        best: the most probable tokens with their log-probabilities, and the token itself.
    """

    token: int
    offset: int
    log_prob: float | None = None
    best: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a completion that is final.

    Attributes:
        text: its text.
        scores: its tokens; empty without log-probabilities.
        generated: number of new tokens.
        reason: `length` or `stop` if the completion ends with it.
    """

    text: str
    scores: list[TokenScore]
    generated: int
    reason: str | None = None


class TextCompletion:
    """One completion of one prompt; a `Reading`.

    Args:
        prompt: the prompt.
        tokenizer: tokenizer of the model.
        sampling: how each token is chosen.
        max_tokens: largest number of new tokens.
        seed: seed of the draws; None for a fresh one.
        stop: texts that end the completion.
        logprobs: see `CompletionRequest`.
        echo: whether it begins with the prompt.

    Attributes:
        prompt: the prompt.
        ids: see `Reading`.
        done: see `Reading`.
    """

    def __init__(
        self,
        prompt: Prompt,
        tokenizer: Tokenizer,
        sampling: Sampling,
        max_tokens: int,
        seed: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        echo: bool = False,
    ) -> None:
        self.prompt, self.ids, self.done = prompt, prompt.ids, False
        self._tokenizer, self._sampling, self._max_tokens, self._logprobs = tokenizer, sampling, max_tokens, logprobs
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed % 2**64)
        self._text: list[str] = [prompt.text] if echo else []
        self._writer = ContinuationWriter(tokenizer, prompt.text, prompt.ids, stop, False, self._text.append)
        self._scores: list[TokenScore] = []
        self._generated = self._sent = 0
        self._next = prompt.ids[-1]
        self._base = len(prompt.text) if echo else 0
        self._scores_prompt = echo and logprobs is not None
        self._reason = ""
        if self._scores_prompt and prompt.size == len(prompt.ids):
            self._scores.append(TokenScore(prompt.ids[0], 0))

    @property
    def first_row(self) -> int:
        return 0 if self._scores_prompt else len(self.prompt.ids) - 1

    @property
    def wants_prediction(self) -> bool:
        return self._generated < self._max_tokens

    @property
    def next_token(self) -> int:
        return self._next

    def take_rows(self, begin: int, log_probs: Tensor) -> None:
        ids = self.prompt.ids
        skipped = len(ids) - self.prompt.size
        for row, position in enumerate(range(begin + 1, begin + 1 + len(log_probs))):
            self._scores.append(self._score(ids[position], self.prompt.offsets[position - skipped], log_probs[row]))

    def take_prediction(self, log_probs: Tensor) -> None:
        allowed = log_probs.clone()
        # <unk> stands for words that the model has never seen; it is no text.
        allowed[self._tokenizer.unk_id] = -torch.inf
        token = int(draw(allowed[None], self._sampling, self._generator))
        if self._logprobs is not None:
            self._scores.append(self._score(token, self._base + len(self._writer.text), log_probs))
        self._writer.write(token)
        self._generated += 1
        self._next = token
        if self._writer.done or self._generated >= self._max_tokens:
            self.end()

    def end(self) -> None:
        self._reason = "stop" if self._writer.finish("length").reason == "stop" else "length"
        self.done = True

    def piece(self) -> Piece | None:
        if not self._text and not self.done:
            return None
        scores = self._scores
        piece = Piece("".join(self._text), scores, self._generated - self._sent, self._reason if self.done else None)
        self._text.clear()
        self._scores, self._sent = [], self._generated
        return piece

    def _score(self, token: int, offset: int, log_probs: Tensor) -> TokenScore:
        log_prob = float(log_probs[token])
        best: dict[int, float] = {}
        if self._logprobs:
            values, ids = log_probs.topk(min(self._logprobs, len(log_probs)))
            best = dict(zip(ids.tolist(), values.tolist(), strict=True))
        return TokenScore(token, offset, log_prob, tuple((best | {token: log_prob}).items()))
