"""Progress of a run that is resumed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from torch_linguist.data import prepare
from torch_linguist.data.corpora.in_memory import InMemoryCorpus
from torch_linguist.errors import LinguistError
from torch_linguist.pipeline.progress import Progress
from torch_linguist.trainer import Callback, TrainingContext

ContextBuilder = Callable[..., TrainingContext]


def test_another_text_is_refused_with_what_differs(
    make_context: ContextBuilder, source_corpus: InMemoryCorpus, own_cache: Path, tmp_path: Path
) -> None:
    corpus = make_context().corpus
    Progress(tmp_path, Callback(), {}, resume=False).begin(corpus, [])
    Progress(tmp_path, Callback(), {}, resume=True).begin(corpus, ["trainer.max_steps: 5 → 9"])
    assert json.loads((tmp_path / "progress.json").read_text())["changes"] == ["trainer.max_steps: 5 → 9"]
    texts = {"train": ["a b c\n" * 50], "valid": ["a b\n"], "test": ["a\n"]}
    other = prepare(InMemoryCorpus(texts, name="other", tokenized=True), None, own_cache, tokenizer=corpus.tokenizer)
    with pytest.raises(LinguistError, match=r"have changed .*train tokens: \d+ then, 200 now"):
        Progress(tmp_path, Callback(), {}, resume=True).begin(other, [])
