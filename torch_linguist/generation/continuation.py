"""A continuation of a prompt while it grows: its text, the part that is final, and its end."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from torch_linguist.data import Tokenizer
from torch_linguist.generation.streaming import TextStream


@dataclass(frozen=True)
class Choice:
    """A generated token and its alternatives.

    Attributes:
        token: the token as the vocabulary has it.
        probability: probability under the model itself, before any filter.
        alternatives: the most probable tokens with their probabilities; `<unk>` is never generated and left out.

    Example:
        >>> sampling = Sampling(greedy=True)
        >>> found = continue_prompt(model, corpus.tokenizer, "the cat", sampling, max_tokens=1, alternatives=2)
        >>> found[0].choices[0].token
        'sat'
    """

    token: str
    probability: float
    alternatives: list[tuple[str, float]]


@dataclass
class Continuation:
    """The result of generation.

    Attributes:
        prompt: the prompt.
        new_text: generated text.
        ids: generated tokens.
        reason: what ended it: `length`, `eos` or `stop`.
        log_probability: log-probability of the tokens under the model itself, in nats.
        choices: one entry for each token, if requested.

    Example:
        >>> found = continue_prompt(model, corpus.tokenizer, "the", Sampling(greedy=True), max_tokens=3)[0]
        >>> found.text == f"{found.prompt}{found.new_text}", len(found.ids)
        (True, 3)
    """

    prompt: str
    new_text: str = ""
    ids: list[int] = field(default_factory=list)
    reason: str = ""
    log_probability: float = 0.0
    choices: list[Choice] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The prompt and the generated text."""
        return f"{self.prompt}{self.new_text}".strip("\n")


class ContinuationWriter:
    """Turns the tokens of one sample into a `Continuation`.

    Args:
        tokenizer: tokenizer of the model.
        prompt: text of the prompt.
        prompt_ids: tokens of the prompt.
        stop: texts that end the continuation; they are cut off.
        stop_at_eos: whether `<eos>` ends it.
        listener: called with each piece of text once it is final.

    Attributes:
        done: whether the continuation has ended.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: str,
        prompt_ids: Sequence[int],
        stop: Sequence[str],
        stop_at_eos: bool,
        listener: Callable[[str], None] | None = None,
    ) -> None:
        self.done = False
        self._tokenizer = tokenizer
        self._stop, self._stop_at_eos, self._listener = stop, stop_at_eos, listener
        self._stream = TextStream(tokenizer)
        for token in prompt_ids:
            self._stream.push(token)
        self._result = Continuation(tokenizer.shown_prompt(prompt))
        self._announced = 0

    @property
    def text(self) -> str:
        """Generated text so far."""
        return self._result.new_text

    def add(self, token: int, log_probabilities: Tensor, alternatives: int = 0) -> None:
        """Append a token.

        Args:
            token: id of the token.
            log_probabilities: log-probability of every token under the model [V].
            alternatives: number of most probable tokens to keep; 0 keeps none.
        """
        log_probability = float(log_probabilities[token])
        self._result.log_probability += log_probability
        if alternatives:
            # One more, in case <unk> is among them.
            best = log_probabilities.topk(min(alternatives + 1, len(log_probabilities)))
            others = [
                (self._tokenizer.surface(other), probability)
                for other, probability in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
                if other != self._tokenizer.unk_id
            ]
            shown = self._tokenizer.surface(token)
            self._result.choices.append(Choice(shown, math.exp(log_probability), others[:alternatives]))
        self.write(token)

    def write(self, token: int) -> None:
        """Append the text of a token, and end the continuation if it contains a stop."""
        result = self._result
        result.ids.append(token)
        if self._stop_at_eos and token == self._tokenizer.eos_id:
            result.new_text += self._stream.finish()
            self._end("eos")
            return
        result.new_text += self._stream.push(token)
        # The stop may have begun in text that was held back.
        places = [place for place in (result.new_text.find(text) for text in self._stop) if place >= 0]
        if places:
            result.new_text = result.new_text[: min(places)]
            self._end("stop")
        else:
            self._announce(len(result.new_text) - self._possible_stop())

    def finish(self, reason: str) -> Continuation:
        """Return the continuation; `reason` applies unless it has ended already."""
        if not self.done:
            self._result.new_text += self._stream.finish()
            self._end(reason)
        return self._result

    def _end(self, reason: str) -> None:
        self.done, self._result.reason = True, reason
        self._announce(len(self._result.new_text))

    def _possible_stop(self) -> int:
        """Return the number of final characters that may be the beginning of a stop."""
        text = self._result.new_text
        lengths = [
            length for wanted in self._stop for length in range(1, len(wanted)) if text.endswith(wanted[:length])
        ]
        return max(lengths, default=0)

    def _announce(self, end: int) -> None:
        """Pass the text up to a place to the listener."""
        if self._listener is not None and end > self._announced:
            self._listener(self._result.new_text[self._announced : end])
        self._announced = max(self._announced, end)
