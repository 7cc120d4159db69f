"""The page's own models in a real browser, held to ours: the same ids, the same probabilities."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import make_counted_and_trained

from torch_linguist.data import (
    BPETokenizerTrainer,
    ByteTokenizerTrainer,
    CharTokenizerTrainer,
    Corpus,
    Tokenizer,
    TokenizerTrainer,
    UnigramTokenizerTrainer,
    WordTokenizerTrainer,
    prepare,
)
from torch_linguist.evaluation.texts.line_scores import score_blocks
from torch_linguist.export.html import PageModel, write_html
from torch_linguist.export.html.packing import rounded_copy, rounded_ngrams
from torch_linguist.model import LanguageModel, Mixture, NGramModel

ModelBuilder = Callable[..., LanguageModel]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TEXTS = [
    "the king sees the river .",
    "My sister's two ships, today: 1,234.5 (or U.S.)!",
    "İstanbul naïve café 😀 x",
    "a <unk> b",
    "every sailor remembers an answer in the morning .",
    "  the   judge -- don't ... ",
    "",
    "the",
    "unseenword unseenword",
    "the king sees the river .\nthe queen finds a door .",
    "\n\n the \n",
    "THE KING SEES",
    'The king\'s house (a small one) -- and "two" ships; why?',
    "the the the the the the the the",
    "日本語 العربية हिन्दी",
    "x\u00a0y\u2028z\tq",
    "<eos> a <unk><unk>",
    "don’t we'll I'm they've 'tis",
    "$1,000.00 50% 3.14 ½ №7 A.D. U.S.A.",
    "👩‍👩‍👧 🇫🇷 e\u0301 ß Ǆ",
]
TRAINERS: dict[str, TokenizerTrainer] = {
    "word": WordTokenizerTrainer(min_frequency=1),
    "lower": WordTokenizerTrainer(min_frequency=1, lowercase=True, split="punctuation"),
    "bpe": BPETokenizerTrainer(vocab_size=300),
    "unigram": UnigramTokenizerTrainer(vocab_size=300),
    "char": CharTokenizerTrainer(),
    "byte": ByteTokenizerTrainer(),
}
KINDS = [
    ("lstm", "word", {}),
    ("lstm", "lower", {"output": "adaptive", "cutoffs": [10, 30]}),
    ("gru", "bpe", {"output": "sampled", "tied": True}),
    ("rnn", "char", {"output": "adaptive", "tied": True, "cutoffs": [5]}),
    ("transformer", "unigram", {"context_length": 200}),
    ("transformer", "byte", {"context_length": 200, "activation": "gelu", "tied": True}),
    ("ngram", "word", {}),
    ("mixture", "word", {}),
]


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs chromium to run the page")
    return found


def built(family: str, corpus: "object", build_model: ModelBuilder, options: dict[str, object]) -> LanguageModel:
    tokenizer = corpus.tokenizer  # type: ignore[attr-defined]
    if family == "ngram":
        counted = NGramModel(tokenizer.vocab_size, order=3)
        counted.fit_counts(corpus.train.ids, tokenizer.eos_id)  # type: ignore[attr-defined]
        return counted
    if family == "mixture":
        parts = [built(one, corpus, build_model, {}) for one in ("ngram", "lstm")]
        return Mixture(parts, [0.25, 0.75]).eval()
    torch.manual_seed(1)
    model = build_model(family, tokenizer.vocab_size, **options)
    with torch.no_grad():  # Far from the uniform distribution, so that mistakes show.
        for parameter in model.parameters():
            parameter.mul_(2 if parameter.dim() == 2 else 1)
    return model


def reference(model: LanguageModel) -> LanguageModel:
    """The model with the weights as they are in the page."""
    if isinstance(model, Mixture):
        return Mixture([reference(component) for component in model.components], model.weights).eval()
    if isinstance(model, NGramModel):
        rounded = NGramModel(model.vocab_size, order=model.order)
        rounded.assign(rounded_ngrams(model.backoff_model()))
        return rounded
    return rounded_copy(model)


def run_page(browser: str, page: Path, expression: str) -> object:
    """The value of a JavaScript expression over `page`, once its models are unpacked."""
    probe = (
        f"<script>ready.then(async (page) => {{ document.body.textContent = JSON.stringify(await {expression}); }})"
        ".catch((error) => { document.body.textContent = JSON.stringify('failed: ' + error.stack); });</script></body>"
    )
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom"]
    shown = subprocess.run([browser, *flags, probed.as_uri()], capture_output=True, text=True, timeout=200, check=True)
    (body,) = re.findall(r"<body>(.*)</body>", shown.stdout, re.DOTALL)
    return json.loads(unescape(body))


@pytest.mark.parametrize(("family", "kind", "options"), KINDS)
def test_the_browser_computes_what_we_compute(
    browser: str,
    build_model: ModelBuilder,
    source_corpus: Corpus,
    tmp_path: Path,
    family: str,
    kind: str,
    options: dict[str, object],
) -> None:
    corpus = prepare(source_corpus, TRAINERS[kind], tmp_path)
    tokenizer: Tokenizer = corpus.tokenizer
    model = built(family, corpus, build_model, options)
    write_html([PageModel("m", model, tokenizer, {})], tmp_path / "page.html")
    scored = (
        f"{json.dumps(TEXTS)}.map((text) => {{ const session = page.sessions[0];"
        " const pieces = session.tokenizer.encode(session.tokenizer.normalized(text));"
        " return {ids: pieces.map((piece) => piece.id), bits: session.surprisals(pieces.map((piece) => piece.id))};})"
    )
    found = run_page(browser, tmp_path / "page.html", scored)
    assert isinstance(found, list), found
    rounded = reference(model)
    for text, theirs in zip(TEXTS, found, strict=True):
        # Lines of a text follow one another, as in the stream that tl-eval scores.
        read = score_blocks(rounded, tokenizer, text.split("\n"), closed=True, running=True)
        blocks = [(block.lines.ids, block.nll) for block in read]
        ids, nll = (np.concatenate(parts)[:-1] for parts in zip(*blocks, strict=True))
        assert theirs["ids"] == ids.tolist(), text
        np.testing.assert_allclose(np.exp2(-np.array(theirs["bits"])), np.exp(-nll), rtol=1e-3)


def test_a_transformer_reads_a_long_text_in_the_windows_of_the_scores(
    browser: str, build_model: ModelBuilder, source_corpus: Corpus, tmp_path: Path
) -> None:
    corpus = prepare(source_corpus, TRAINERS["word"], tmp_path)
    model = build_model("transformer", corpus.tokenizer.vocab_size, context_length=8)
    write_html([PageModel("m", model, corpus.tokenizer, {})], tmp_path / "page.html")
    # Whole windows: the first one and six more, each half a context further.
    text = " ".join(["the king sees a small house and the judge finds two ships ."] * 3)[:-2].rsplit(" ", 6)[0]
    ids = corpus.tokenizer.encode(text)
    assert len(ids) == 8 + 6 * 4
    bits = run_page(browser, tmp_path / "page.html", f"page.sessions[0].surprisals({json.dumps(ids)})")
    (ours,) = score_blocks(rounded_copy(model), corpus.tokenizer, [text], closed=False)
    np.testing.assert_allclose(np.exp2(-np.array(bits)), np.exp(-ours.nll), rtol=1e-3)


def test_a_seed_repeats_a_generation_and_the_tabs_open(
    browser: str, build_model: ModelBuilder, source_corpus: Corpus, tmp_path: Path
) -> None:
    corpus = prepare(source_corpus, TRAINERS["word"], tmp_path)
    models = [
        PageModel(family, build_model(family, corpus.tokenizer.vocab_size), corpus.tokenizer, {"test": {}})
        for family in ("lstm", "transformer")
    ]
    write_html(models, tmp_path / "page.html", "the king")
    drawing = (
        "((session) => { const random = randomOf(7), logs = session.last().logs; return Array.from({length: 400},"
        " () => drawn(logs, {temperature: 1, topK: 2, topP: 1}, random, session.tokenizer.unk)); })(page.sessions[0])"
    )
    one, other = (run_page(browser, tmp_path / "page.html", drawing) for _ in range(2))
    assert one == other
    assert isinstance(one, list)
    model = rounded_copy(models[0].model)
    logits, _ = model(torch.tensor([[0, *corpus.tokenizer.encode("the king")]]), model.initial_state(1))
    best = torch.softmax(logits[0, -1], 0)
    best[corpus.tokenizer.unk_id] = 0
    shares, ids = best.topk(2)
    assert set(one) <= set(ids.tolist())
    expected = float((shares[0] / shares.sum()).detach())
    assert one.count(int(ids[0])) / 400 == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 400))
    opened = (
        "(async () => { const counts = []; for (const name of ['generate', 'inside', 'compare', 'about']) {"
        " document.getElementById('tab-' + name).click(); await page.settled;"
        " counts.push([...document.querySelectorAll('[role=tabpanel]')].filter((panel) => !panel.hidden).length +"
        " document.querySelectorAll('#inside-area table, #compare-area section').length); } return counts; })()"
    )
    assert run_page(browser, tmp_path / "page.html", opened) == [1, 4, 6, 6]


def test_keyboard_labels_and_escaped_names(
    browser: str, build_model: ModelBuilder, source_corpus: Corpus, tmp_path: Path
) -> None:
    corpus = prepare(source_corpus, TRAINERS["word"], tmp_path)
    hostile = "<b>x</b><script>document.title = 'broken'</script>"
    models = [
        PageModel(label, build_model("transformer", corpus.tokenizer.vocab_size), corpus.tokenizer, {"data": hostile})
        for label in (hostile, "other")
    ]
    write_html(models, tmp_path / "page.html", "the king <i>y</i>")
    used = (
        "(async () => { const broken = document.title === 'broken';"
        " const markup = document.querySelectorAll('b, i, #about script').length + broken;"
        " page.text.value = 'the king '; await page.typed();"
        " page.text.dispatchEvent(new KeyboardEvent('keydown', {key: 'Tab', cancelable: true})); await page.settled;"
        " const taken = page.text.value; document.getElementById('tab-type')"
        ".dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'})); const opened = document.activeElement.id;"
        " document.getElementById('tab-inside').click(); await page.settled;"
        " const words = [...document.querySelectorAll('#inside-area button')]; words[0].focus();"
        " const unnamed = [...document.querySelectorAll('input, select, textarea, button, table')].filter((one) =>"
        " !(one.labels && one.labels.length) && !one.textContent.trim() && !one.getAttribute('aria-label')).length;"
        " return [markup, taken.startsWith('the king ') && taken.length > 9, opened,"
        " words[0].classList.contains('chosen'), unnamed]; })()"
    )
    assert run_page(browser, tmp_path / "page.html", used) == [0, True, "tab-generate", True, 0]


def test_the_command_writes_runs_and_their_mixture(
    browser: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch_linguist.cli import export

    make_counted_and_trained(tmp_path)
    runs = [str(tmp_path / name) for name in ("counted", "trained")]
    page = tmp_path / "both.html"
    assert export.main([*runs, "--weights", "0.5", "0.5", "--html", str(page), "--prompt", "line 3"]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    shares = (
        "page.sessions.map((one) => [one.run.label, Math.exp(one.last().logs[one.tokenizer.encode('tells')[0].id])])"
    )
    settled = f"(page.compare(), {shares})"
    found = run_page(browser, page, settled)
    assert isinstance(found, list)
    assert [label for label, _ in found] == ["counted", "trained", "mixture"]
    assert found[2][1] == pytest.approx((found[0][1] + found[1][1]) / 2, rel=1e-5)
    assert export.main([*runs, "--html", "--jit", "--output", str(page)]) == 2
    other = tmp_path / "other.html"
    assert export.main([*runs, "--html", "--output", str(other)]) == 0
    assert export.main([*runs, "--html"]) == 0
    assert other.read_bytes() == (tmp_path / "counted" / "model.html").read_bytes()
