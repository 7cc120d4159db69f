"""Fixtures of all tests: a small generated corpus, small models of every family, short trainings, a private cache."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_linguist.data import InMemoryCorpus, TokenizedCorpus, WordTokenizerTrainer, prepare
from torch_linguist.evaluation.score_settings import ScoreSettings
from torch_linguist.model import GRU, LSTM, RNN, LanguageModel, Transformer
from torch_linguist.optim import Constant
from torch_linguist.trainer import CheckpointSettings, Fit, TrainerSettings, TrainingContext

FAMILIES: dict[str, type[LanguageModel]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU, "transformer": Transformer}

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


# A background job of a shell ignores Ctrl+C and hands that on: the commands that tests start and interrupt would go on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the tests in `tests/fuzzing`, which are short by default and run as long as one likes."""
    parser.addoption("--fuzz-rounds", type=int, default=0, help="rounds of each fuzzing test (default: a few)")
    parser.addoption("--fuzz-seed", type=int, default=1, help="seed of the fuzzing tests")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Callable[[int], Iterator[tuple[int, random.Random]]]:
    """`rounds(default)`: for each round its number and its own source of randomness.

    `--fuzz-rounds` replaces the default, `--fuzz-seed` changes the randomness. A round depends on its number, the seed
    and the name of the test alone, so that a failure can be repeated.
    """
    seed, chosen = request.config.getoption("--fuzz-seed"), request.config.getoption("--fuzz-rounds")

    def counted(default: int) -> Iterator[tuple[int, random.Random]]:
        for number in range(chosen or default):
            yield number, random.Random(f"{request.node.name} {seed} {number}")

    return counted


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Token caches go to a folder of this session, never to the user's."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("TORCH_LINGUIST_CACHE")
    os.environ["TORCH_LINGUIST_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["TORCH_LINGUIST_CACHE"]
    else:
        os.environ["TORCH_LINGUIST_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def kept_bytecode() -> None:
    """Commands that tests start as processes need not compile the package each time."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny products lose by threads, above all beside other test processes."""
    torch.set_num_threads(1)


def made_text(lines: int, seed: int) -> str:
    """Sentences of a small grammar: learnable, and the same wherever the tests run."""
    source = random.Random(seed)
    people = ["the king", "a queen", "the old farmer", "my sister", "every sailor", "the judge"]
    verbs = ["sees", "finds", "follows", "forgets", "remembers", "paints"]
    things = ["the river", "a small house", "the blue door", "two ships", "the road", "an answer", "his letter"]
    ends = ["today .", "in the morning .", "again and again .", ".", "!", "?"]
    sentences = [
        " ".join((source.choice(people), source.choice(verbs), source.choice(things), source.choice(ends)))
        for _ in range(lines)
    ]
    return "\n".join(sentences) + "\n"


def made_corpus() -> InMemoryCorpus:
    """The text behind `tiny_corpus`."""
    texts = {"train": [made_text(500, 1)], "valid": [made_text(60, 2)], "test": [made_text(50, 3) + "a zebra .\n"]}
    return InMemoryCorpus(texts, name="made", tokenized=True)


@pytest.fixture(scope="session")
def source_corpus() -> InMemoryCorpus:
    """The documents of `tiny_corpus`."""
    return made_corpus()


@pytest.fixture(scope="session")
def tiny_corpus(source_corpus: InMemoryCorpus, own_cache: Path) -> TokenizedCorpus:
    """A made corpus of some 5,000 training tokens and 50 types, tokenized by words."""
    return prepare(source_corpus, WordTokenizerTrainer(min_frequency=1), own_cache)


@pytest.fixture(scope="session")
def shared_wikitext2() -> Path:
    """WikiText-2 beside the checkout; skips where it is not."""
    folder = (Path(__file__).resolve().parents[1] / "../shared/data/wikitext-2").resolve()
    if not folder.is_dir():
        pytest.skip(f"needs WikiText-2 in {folder}")
    return folder


def build(family: str, vocab_size: int = 50, **options: Any) -> LanguageModel:
    """A small model of a family, in eval mode, the same at every call."""
    chosen: dict[str, Any] = {"embedding_dim": 16, "num_layers": 2, "dropout": 0.0, "output": "full", "tied": False}
    chosen |= {"num_heads": 2, "context_length": 8} if family == "transformer" else {"hidden_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = FAMILIES[family](vocab_size, **(chosen | options))
    return model.eval()


@pytest.fixture(scope="session")
def build_model() -> ModelBuilder:
    """`build_model(family, vocab_size, **options)`: a small model in eval mode."""
    return build


@pytest.fixture
def make_context(tiny_corpus: TokenizedCorpus) -> ContextBuilder:
    """`make_context(**settings)`: a training context over the test corpus, ten steps unless `settings` say more."""

    def make(**options: Any) -> TrainingContext:
        own = {key: options.pop(key) for key in ("schedule", "seed", "make_optimizer", "score") if key in options}
        limits = ("max_steps", "max_epochs", "max_tokens", "max_minutes")
        settings: dict[str, Any] = {"batch_size": 4, "sequence_length": 8, "device": "cpu", "precision": "fp32"}
        if not any(limit in options for limit in limits):
            settings["max_steps"] = 10
        context = TrainingContext(
            corpus=tiny_corpus,
            make_optimizer=torch.optim.AdamW,
            schedule=Constant(),
            settings=TrainerSettings(**(settings | options)),
            score=ScoreSettings(),
            seed=3,
        )
        return replace(context, **own)

    return make


@pytest.fixture
def fit_of(
    make_context: Callable[..., TrainingContext], build_model: Callable[..., LanguageModel]
) -> Callable[..., Fit]:
    """`fit_of(folder, every_steps=2, **options)`: twelve updates of an LSTM with a checkpoint every `every_steps`."""

    def make(folder: Path, every_steps: int | None = 2, **options: Any) -> Fit:
        own = {key: options.pop(key) for key in ("callbacks", "resume", "stop") if key in options}
        context = make_context(**({"max_steps": 12, "eval_every": 4, "log_every": 3, "eval_tokens": 60} | options))
        context = replace(context, checkpoint=CheckpointSettings(every_steps=every_steps))
        folder.mkdir(exist_ok=True)
        model = build_model("lstm", context.corpus.tokenizer.vocab_size, dropout=0.2)
        return Fit(model, context, 0.02, 0.1, folder, **own)

    return make
