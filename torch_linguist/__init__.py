"""torch_linguist: train, measure, understand and export small language models.

Ten lines in a notebook::

    from torch_linguist import LSTM, TextCorpus, WordTokenizerTrainer, generate, prepare, score, train

    corpus = prepare(TextCorpus("my_texts/"), WordTokenizerTrainer(min_frequency=2))
    model = LSTM(corpus.tokenizer.vocab_size, hidden_size=256)
    train(model, corpus, lr=3e-3, max_epochs=3)
    print(score(model, corpus.test).perplexity)
    print(generate(model, corpus.tokenizer, "The", max_tokens=40)[0])

The names are imported when they are first used, so that `import torch_linguist` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_linguist.checkpoint import LoadedRun, load_run
    from torch_linguist.data import (
        BPETokenizerTrainer,
        Corpus,
        Document,
        SotuCorpus,
        TextCorpus,
        TokenizedCorpus,
        Tokenizer,
        TokenStream,
        WikiTextCorpus,
        WordTokenizerTrainer,
        prepare,
    )
    from torch_linguist.errors import LinguistError
    from torch_linguist.evaluation import Score, score, stream_nll
    from torch_linguist.export import export_jit, load_jit
    from torch_linguist.generation import Sampling, continue_prompt, generate
    from torch_linguist.model import GRU, LSTM, RNN, LanguageModel, Mixture, NGramModel, Transformer
    from torch_linguist.trainer import train

__version__ = "0.2.0"

_ROOMS = {
    "data": (
        "BPETokenizerTrainer",
        "Corpus",
        "Document",
        "SotuCorpus",
        "TextCorpus",
        "TokenStream",
        "TokenizedCorpus",
        "Tokenizer",
        "WikiTextCorpus",
        "WordTokenizerTrainer",
        "prepare",
    ),
    "errors": ("LinguistError",),
    "evaluation": ("Score", "score", "stream_nll"),
    "export": ("export_jit", "load_jit"),
    "generation": ("Sampling", "continue_prompt", "generate"),
    "model": ("GRU", "LSTM", "RNN", "LanguageModel", "Mixture", "NGramModel", "Transformer"),
    "checkpoint": ("LoadedRun", "load_run"),
    "trainer": ("train",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BPETokenizerTrainer",
    "Corpus",
    "Document",
    "LanguageModel",
    "LinguistError",
    "LoadedRun",
    "Mixture",
    "NGramModel",
    "Sampling",
    "Score",
    "SotuCorpus",
    "TextCorpus",
    "TokenStream",
    "TokenizedCorpus",
    "Tokenizer",
    "Transformer",
    "WikiTextCorpus",
    "WordTokenizerTrainer",
    "continue_prompt",
    "export_jit",
    "generate",
    "load_jit",
    "load_run",
    "prepare",
    "score",
    "stream_nll",
    "train",
]


def __getattr__(name: str) -> Any:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{room}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
