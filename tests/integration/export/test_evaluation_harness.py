"""lm-evaluation-harness on runs of every family, with tasks of its own and without a network."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from torch_linguist.checkpoint import save_checkpoint
from torch_linguist.data import InMemoryCorpus, TokenizedCorpus, prepare
from torch_linguist.evaluation import score
from torch_linguist.generation import generate
from torch_linguist.model import LanguageModel, NGramModel

lm_eval = pytest.importorskip("lm_eval", reason='needs pip install "torch-linguist[lm-eval]"')
pytestmark = pytest.mark.integrations

ModelBuilder = Callable[..., LanguageModel]
TASK = """\
task: rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: bits_per_byte}}
"""


@pytest.fixture(params=["lstm", "transformer", "ngram"])
def run(
    request: pytest.FixtureRequest, tiny_corpus: TokenizedCorpus, build_model: ModelBuilder, tmp_path: Path
) -> tuple[Path, LanguageModel]:
    """A run folder with a model of a family."""
    tokenizer = tiny_corpus.tokenizer
    if request.param == "ngram":
        model: LanguageModel = NGramModel(tokenizer.vocab_size, order=3)
        model.fit_counts(tiny_corpus.train.ids, tokenizer.eos_id)
    else:
        model = build_model(request.param, tokenizer.vocab_size)
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer.json")
    save_checkpoint(folder / "checkpoints" / "best.pt", model, {})
    return folder, model.eval()


def asked(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def test_likelihoods_are_those_of_the_model(run: tuple[Path, LanguageModel], tiny_corpus: TokenizedCorpus) -> None:
    from torch_linguist.generation.evaluation_harness import HarnessModel

    folder, model = run
    tokenizer = tiny_corpus.tokenizer
    harness = HarnessModel(run=str(folder))
    pairs = [("the old ", "sailor finds a door"), ("", "the sailor"), ("the sailor\n", "the"), ("the", "")]
    found = harness.loglikelihood([asked(*pair) for pair in pairs])
    for (context, continuation), (log_likelihood, greedy) in zip(pairs, found, strict=True):
        ids = [tokenizer.eos_id, *tokenizer.encode(context + continuation)]
        length = len(ids) - 1 - len(tokenizer.encode(context.rstrip()))
        logits = model(torch.tensor([ids[:-1]]), model.initial_state(1))[0][0].double() if len(ids) > 1 else None
        if length == 0 or logits is None:
            assert (log_likelihood, greedy) == (0.0, True)
            continue
        each = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), ids[1:]][-length:]
        assert log_likelihood == pytest.approx(float(each.sum()), abs=1e-4)
        assert greedy == (logits.argmax(-1).tolist()[-length:] == ids[-length:])
    (text,) = harness.generate_until([asked("the sailor", {"until": ["\n"], "max_gen_toks": 9})])
    expected = generate(model, tokenizer, "the sailor", max_tokens=9, greedy=True, stop=["\n"])[0]
    assert f"the sailor{text}" == expected


def test_the_harness_gives_the_perplexity_of_tl_eval(
    run: tuple[Path, LanguageModel], tiny_corpus: TokenizedCorpus, source_corpus: InMemoryCorpus, tmp_path: Path
) -> None:
    from lm_eval.tasks import TaskManager

    from torch_linguist.generation.evaluation_harness import HarnessModel

    folder, model = run
    text = "".join(document.text for document in source_corpus.documents("test")).rstrip("\n")
    texts = {"train": [text], "valid": [text], "test": [text]}
    stream = prepare(
        InMemoryCorpus(texts, name="one", tokenized=True), None, tmp_path / "cache", tokenizer=tiny_corpus.tokenizer
    ).test
    ours = score(model, stream)
    data = tmp_path / "test.jsonl"
    data.write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "rolling.yaml").write_text(TASK.format(file=data), encoding="utf-8")
    found = lm_eval.simple_evaluate(
        HarnessModel(run=str(folder)),
        tasks=["rolling"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
    )
    results = found["results"]["rolling"]
    assert results["word_perplexity,none"] == pytest.approx(ours.word_perplexity, rel=1e-4)


PAGES = [
    " \n = Old Harbor = \n \n The old harbor ( begun in 1802 ) is a sailor 's door @-@ step ; it cost 1 @,@ 200 . \n"
    ' \n = = Use = = \n \n " The sailor finds a door , " says the guide . \n',
    " \n = The <unk> = \n \n Every king sees the river : a small house , two ships . \n",
]
WIKITEXT = """\
task: pages
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: !function form.wikitext_detokenizer
process_results: !function form.process_results
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: byte_perplexity}}
  - {{metric: bits_per_byte}}
"""


def test_the_form_of_the_harness_for_wikitext(
    run: tuple[Path, LanguageModel], tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    """The harness joins the words again, reads each page by itself and divides by the words of the original page."""
    form = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    from lm_eval.tasks import TaskManager

    from torch_linguist.generation.evaluation_harness import HarnessModel

    folder, model = run
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "form.py").write_text(
        "from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer\n"
    )
    data = tmp_path / "pages.jsonl"
    data.write_text("".join(json.dumps({"page": page}) + "\n" for page in PAGES), encoding="utf-8")
    (tmp_path / "tasks" / "pages.yaml").write_text(WIKITEXT.format(file=data), encoding="utf-8")
    found = lm_eval.simple_evaluate(
        HarnessModel(run=str(folder)),
        tasks=["pages"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
    )
    nats = 0.0
    for number, page in enumerate(PAGES):
        text = form.wikitext_detokenizer({"page": page}).removesuffix("\n")
        corpus = InMemoryCorpus(
            {"train": [text], "valid": [text], "test": [text]}, name=f"page{number}", tokenized=True
        )
        ours = score(model, prepare(corpus, None, tmp_path / "cache", tokenizer=tiny_corpus.tokenizer).test)
        nats += ours.loss * ours.tokens
    words = sum(len(re.split(r"\s+", page)) for page in PAGES)
    assert found["results"]["pages"]["word_perplexity,none"] == pytest.approx(math.exp(nats / words), rel=1e-4)


def test_the_command_knows_the_model(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    data = tmp_path / "test.jsonl"
    data.write_text('{"text": "x"}\n', encoding="utf-8")
    (tmp_path / "tasks" / "rolling.yaml").write_text(TASK.format(file=data), encoding="utf-8")
    command = [sys.executable, "-m", "torch_linguist.cli.lm_eval", "--model", "torch_linguist", "--tasks", "rolling"]
    command += ["--model_args", f"run={tmp_path}/none", "--include_path", str(tmp_path / "tasks")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "no such run folder" in done.stderr
