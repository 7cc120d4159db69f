"""Suggests whole words while a text is typed, whatever the tokens are.

Shape legend: B beams, V vocabulary.
"""

from dataclasses import dataclass

import torch
from tokenizers import pre_tokenizers
from torch import Tensor

from torch_linguist.data import Tokenizer
from torch_linguist.generation.continuing import prompt_tokens
from torch_linguist.generation.decoding import read_prompt
from torch_linguist.model import LanguageModel, State, device_of

BEAMS = 12
LONGEST_WORD = 16
"""Largest number of tokens of a suggested word."""

BLANK = "Ġ"
"""A blank in byte-level tokens."""


@dataclass(frozen=True)
class Suggestion:
    """A suggested word.

    Attributes:
        word: the whole word.
        probability: probability that it comes next, given the typed text.
        completion: the part that is still to be typed.

    Example:
        >>> Suggester(model, corpus.tokenizer).suggest("the c", count=1)[0].completion
        'at'
    """

    word: str
    probability: float
    completion: str


@dataclass(frozen=True, eq=False)
class _Path:
    text: str
    log_probability: float


class Suggester:
    """Suggests the next word, or the rest of the word being typed.

    Args:
        model: any model; it is put in evaluation mode.
        tokenizer: tokenizer that the model was trained with.

    Example:
        >>> [suggestion.word for suggestion in Suggester(model, corpus.tokenizer).suggest("the c", count=1)]
        ['cat']
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model.eval(), tokenizer
        self._bytes = tokenizer.is_byte_level
        self._ids = {token: index for index, token in enumerate(tokenizer.tokens)}
        # Text that each token adds to a line; words include the blank before them.
        self._surfaces = [f" {token}" if tokenizer.joins_words else token for token in tokenizer.tokens]
        for special in (tokenizer.eos_id, tokenizer.unk_id):
            self._surfaces[special] = ""
        self._blank = BLANK if self._bytes else " "
        self._ends = torch.tensor([not surface or not self._goes_on(surface) for surface in self._surfaces])

    def suggest(self, text: str, count: int = 5) -> list[Suggestion]:
        """Return the most probable next words, the best first.

        Args:
            text: typed text. An empty text, or one that ends in a blank, asks for a new word; any other for the rest of
                its last word.
            count: largest number of suggestions.
        """
        line = text.rpartition("\n")[2]
        typed = "" if line.endswith(" ") or not line else line.split(" ")[-1]
        before = text[: len(text) - len(typed)]
        at_start = not before.rpartition("\n")[2].strip(" ")
        context = before if at_start or before.endswith("\n") else before.rstrip(" ")
        begin = "" if at_start and not self._tokenizer.joins_words else " "
        with torch.inference_mode():
            found = self._search(context, self._written(begin + typed), count)
        given = sum(probability for _, probability in found)
        suggestions = [
            Suggestion(word, probability / self._share(typed, given), word[len(typed) :]) for word, probability in found
        ]
        return suggestions[:count]

    @staticmethod
    def _share(typed: str, given: float) -> float:
        """Return the divisor of the probabilities: that a word begins as typed is certain."""
        return given if typed and given > 0 else 1.0

    def _goes_on(self, surface: str) -> bool:
        """Return whether a token continues the word before it."""
        if self._tokenizer.joins_words or surface.startswith(self._blank):
            return False
        return surface[0].isalnum() or surface[0] in "'_-" or (self._bytes and ord(surface[0]) > 127)

    def _written(self, text: str) -> str:
        """Return a text as the tokens spell it."""
        if not self._bytes or not text:
            return text
        pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        return "".join(piece for piece, _ in pieces)

    def _search(self, context: str, wanted: str, count: int) -> list[tuple[str, float]]:
        """Return whole words that begin as wanted, including the blank before them, and their probabilities."""
        logits, state = read_prompt(self._model, prompt_tokens(self._tokenizer, context))
        paths = [_Path("", 0.0)]
        words: dict[str, float] = {}
        for _ in range(LONGEST_WORD):
            log_probabilities = torch.log_softmax(logits.float().cpu(), dim=-1)
            grown: list[tuple[float, int, int]] = []
            for row, path in enumerate(paths):
                inside = len(path.text) > len(self._blank) and path.text.startswith(wanted)
                if inside:
                    ending = float(torch.logsumexp(log_probabilities[row][self._ends], dim=0))
                    self._keep(words, path.text, path.log_probability + ending)
                allowed = self._allowed(path.text, wanted)
                scores = log_probabilities[row].masked_fill(~allowed, -torch.inf) + path.log_probability
                best = scores.topk(min(max(BEAMS, count), len(scores)))
                for score, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                    if score == -torch.inf:
                        break
                    if self._tokenizer.joins_words:
                        self._keep(words, self._surfaces[token], score)
                    else:
                        grown.append((score, row, token))
            floor = sorted(words.values(), reverse=True)[count - 1 : count]
            grown = sorted(grown, reverse=True)[:BEAMS]
            # A longer word is never more probable than its beginning.
            if not grown or (floor and grown[0][0] < float(torch.tensor(floor[0]).log())):
                break
            paths = [_Path(paths[row].text + self._surfaces[token], score) for score, row, token in grown]
            logits, state = self._advance(grown, state)
        return sorted(words.items(), key=lambda pair: -pair[1])[: max(count, 1)]

    def _advance(self, grown: list[tuple[float, int, int]], state: State) -> tuple[Tensor, State]:
        device = device_of(self._model)
        origin = torch.tensor([row for _, row, _ in grown], device=device)
        tokens = torch.tensor([[token] for _, _, token in grown], device=device)
        logits, new_state = self._model(tokens, [tensor.index_select(1, origin) for tensor in state])
        return logits[:, -1], new_state

    def _allowed(self, text: str, wanted: str) -> Tensor:
        """Return which tokens may follow a path: those that spell the wanted beginning, then those that continue it."""
        rest = wanted[len(text) :]
        if not rest and text not in ("", self._blank):
            return ~self._ends
        fits = [bool(surface) and (surface.startswith(rest) or rest.startswith(surface)) for surface in self._surfaces]
        return torch.tensor(fits)

    def _keep(self, words: dict[str, float], text: str, log_probability: float) -> None:
        """Add the probability of a word; several spellings in tokens make the same word."""
        word = text
        if self._bytes:
            word = self._tokenizer.decode([self._ids[character] for character in text])
        word = word.removeprefix(" ")
        if word and "\ufffd" not in word:
            words[word] = words.get(word, 0.0) + float(torch.tensor(log_probability).exp())
