"""Prompts: reading them from a file, words outside the vocabulary, and the surprise of a line.

Shape legend: T time.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from torch_linguist.data import Tokenizer
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.generation.continuing import prompt_tokens
from torch_linguist.model import LanguageModel


@dataclass(frozen=True)
class LineSurprise:
    """How surprising a line is to a model.

    Attributes:
        perplexity: perplexity of the line.
        tokens: number of tokens.
        least_expected: the token with the lowest probability, as readable text.
        probability: probability of that token.
    """

    perplexity: float
    tokens: int
    least_expected: str
    probability: float


def read_prompts(path: Path) -> list[str]:
    """Read a file with one prompt per line.

    Raises:
        LinguistError: the file cannot be read, or is not UTF-8 text.
        ConfigError: the file holds no prompt.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LinguistError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise LinguistError(f"{path}: cannot be read ({error.strerror})") from error
    prompts = text.removesuffix("\n").split("\n")
    if not any(prompts):
        raise ConfigError(f"{path}: holds no prompt; write one per line")
    return prompts


def unknown_note(tokenizer: Tokenizer, prompt: str, most: int = 8) -> str | None:
    """Return a note that lists the words of a prompt outside the vocabulary; None if there are none."""
    unknown = unknown_words(tokenizer, prompt)
    if not unknown:
        return None
    more = f" and {len(unknown) - most} more" if len(unknown) > most else ""
    return f"note: not in the vocabulary, read as <unk>: {', '.join(unknown[:most])}{more}"


def unknown_words(tokenizer: Tokenizer, prompt: str) -> list[str]:
    """Return the words of a prompt that the model reads as `<unk>`, each once."""
    words = dict.fromkeys(prompt.split())
    return [word for word in words if word != "<unk>" and tokenizer.unk_id in tokenizer.encode(word)]


def line_surprise(model: LanguageModel, tokenizer: Tokenizer, context: str, line: str) -> LineSurprise | None:
    """Measure how surprising a line is after a context.

    Returns:
        The measurement; None for a line without tokens.
    """
    before, ids = prompt_tokens(tokenizer, context), tokenizer.encode(line)
    if not ids:
        return None
    with torch.inference_mode():
        tokens = torch.tensor([[*before, *ids]])
        nll = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(1))[0][0, -len(ids) :].double()
    worst = int(nll.argmax())
    return LineSurprise(
        perplexity=math.exp(min(float(nll.mean()), 700)),
        tokens=len(ids),
        least_expected=tokenizer.surface(ids[worst]).strip() or "a blank",
        probability=float(torch.exp(-nll[worst])),
    )
