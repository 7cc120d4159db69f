"""`tl-analyze` as a person runs it: the folder, the numbers against the score, the page in a browser, bad input."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import show
from conftest import made_text
from small_runs import call

from torch_linguist.analysis import PARTS
from torch_linguist.cli import analyze

SMALL = ["--probes", "8", "--passages", "1", "--examples", "1", "--predictions", "300"]
FIT = ["optim.lr=0.01", "optim.weight_decay=0", "stages=[fit]", "trainer.max_steps=15", "trainer.device=cpu"]
TINY = ["model.embedding_dim=16", "trainer.batch_size=4", "trainer.sequence_length=16", "trainer.precision=fp32"]

pytestmark = pytest.mark.xdist_group("analyze")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An otherwise empty folder with a small corpus with metadata and three runs on it."""
    folder = tmp_path_factory.mktemp("workplace")
    rows = [
        {"text": made_text(12, seed), "party": ["Whig", "Tory"][seed % 2], "year": 1800 + 5 * seed, "kind": seed // 20}
        for seed in range(40)
    ]
    (folder / "tales.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    corpus = ["data=text", "data.path=tales.jsonl", "data.valid_fraction=0.3"]
    for arguments in (
        ["model=transformer", "model.num_heads=2", "model.context_length=32", *TINY, *FIT, "name=transformer"],
        ["model=gru", "model.hidden_size=16", "tokenizer=bpe", "tokenizer.vocab_size=300", *TINY, *FIT, "name=gru"],
        ["model=ngram", "model.order=3", "name=ngram"],
    ):
        code, output, errors = call("train", *corpus, *arguments, folder=folder)
        assert code == 0, output + errors
    return folder


@pytest.fixture(scope="module")
def analyzed(workplace: Path) -> Path:
    """Two runs side by side, with a text of one's own that the vocabulary does not hold."""
    text = "the zyx king sees " * 30
    arguments = ["outputs/transformer", "outputs/ngram", "--text", text, "--name", "both", *SMALL]
    code, output, errors = call("analyze", *arguments, folder=workplace)
    assert code == 0, output + errors
    assert "page: outputs/both/index.html" in output
    assert "\n  tl-eval outputs/transformer outputs/ngram --split test\n" in output, "the next commands can be copied"
    assert "Traceback" not in errors
    return workplace / "outputs" / "both"


def test_the_folder_holds_the_page_and_all_that_it_shows(analyzed: Path) -> None:
    page = (analyzed / "index.html").read_text(encoding="utf-8")
    figures = {path.stem for path in (analyzed / "figures").glob("*.png")}
    pictures = set(re.findall(r'<figure id="([^"]+)"', page))
    colored = set(re.findall(r'<div class="card" id="([^"]+)"', page))
    assert pictures | colored == figures
    assert {"context_length", "changed_word", "reliability", "loss_by_party_and_kind_transformer"} <= pictures
    assert {"attention_transformer", "occlusion_ngram", "differences", "map_transformer"} <= pictures
    assert {"attribution_1_ngram", "surprisal_1_transformer", "difference_1"} <= colored
    assert not re.search(r"""(src|href)=["']?(https?:|//|figures)""", page)
    assert "<script" not in page
    assert "NGramModel has no attention to draw" in page
    assert "its last 32 of 120 tokens" in page
    assert not list(analyzed.rglob(".*"))


def test_the_tables_agree_with_the_score_of_the_run(analyzed: Path, workplace: Path) -> None:
    slices = pd.read_csv(analyzed / "tables" / "slices.csv")
    pairs = pd.read_csv(analyzed / "tables" / "slices_pairs.csv")
    for name in ("transformer", "ngram"):
        valid = json.loads((workplace / "outputs" / name / "summary.json").read_text())["valid"]
        for table in (slices, pairs):
            for _, own in table[table["run"] == name].groupby("slice"):
                assert own["tokens"].sum() == valid["tokens"]
                assert np.average(own["loss"], weights=own["tokens"]) == pytest.approx(valid["loss"], rel=1e-6)
        context = pd.read_csv(analyzed / "tables" / "context_length.csv").query("run == @name")
        assert context["context"].max() == (32 if name == "transformer" else 512)
    assert {"party", "year", "kind", "word class", "frequency in train"} <= set(slices["slice"])
    assert {"party × kind", "party × year"} <= set(pairs["slice"])
    differences = pd.read_csv(analyzed / "tables" / "differences.csv")
    losses = {name: own.set_index(["slice", "value"])["loss"] for name, own in slices.groupby("run")}
    expected = losses["ngram"] - losses["transformer"]
    found = differences.set_index(["slice", "value"])["difference"]
    assert len(found) == len(expected)
    assert (found - expected).abs().max() < 1e-6
    attributions = pd.read_csv(analyzed / "tables" / "attributions.csv")
    counted = attributions[(attributions["run"] == "ngram") & (attributions["source"].str.startswith("valid"))]
    assert (counted["occlusion"].iloc[:-2] == 0).all()
    assert {"integrated_gradients", "input_x_gradient", "attention"} <= set(attributions.columns)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page(analyzed: Path, tmp_path: Path, width: int) -> None:
    shown = show(analyzed / "index.html", tmp_path, width)
    assert shown.available == width
    assert shown.needed <= shown.available
    assert shown.loaded == shown.pictures > 15
    assert shown.logged == []


def test_runs_of_two_tokenizers_are_compared_line_by_line(workplace: Path) -> None:
    arguments = ["outputs/gru", "outputs/ngram", "--parts", "comparison", "embeddings", "--name", "lines"]
    code, output, errors = call("analyze", *arguments, folder=workplace)
    assert code == 0, output + errors
    folder = workplace / "outputs" / "lines"
    assert "different tokenizers" in (folder / "index.html").read_text(encoding="utf-8")
    differences = pd.read_csv(folder / "tables" / "differences.csv")
    losses = {}
    for name in ("gru", "ngram"):
        valid = json.loads((workplace / "outputs" / name / "summary.json").read_text())["valid"]
        losses[name] = valid["loss"] * valid["tokens"]
    for _, own in differences.groupby("slice"):
        whole = float((own["difference"] * own["tokens"]).sum())
        assert whole == pytest.approx(losses["ngram"] - losses["gru"], rel=1e-5)


def test_the_command_knows_every_part() -> None:
    # It names them without importing what takes its time.
    assert analyze.PARTS == PARTS


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["outputs/ngram", "outputs/gru", "outputs/ngram"], 2, "one, or two side by side"),
        (["outputs/ngram", "--parts", "colors"], 2, "invalid choice: 'colors'"),
        (["outputs/ngram", "--text", " "], 2, "--text: the text is empty"),
        (["outputs/ngram", "--probes", "1"], 2, "--probes: 1: must be between 2 and"),
        (["outputs/none"], 1, "outputs/none: no such run; "),
        (["outputs/unfinished"], 1, "checkpoint"),
        (["outputs/transformer", "--stride", "99"], 1, "score.stride=99"),
        (["outputs/ngram", "--data", "text:none.txt"], 1, "no such file"),
        (["outputs/ngram", "--name", "a/b"], 2, "must be a folder name"),
    ],
)
def test_mistakes_are_one_line(
    workplace: Path,
    arguments: list[str],
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(workplace)
    unfinished = Path("outputs/unfinished")
    if not unfinished.is_dir():
        unfinished.mkdir()
        for name in ("config.yaml", "tokenizer.json"):
            (unfinished / name).write_bytes((Path("outputs/gru") / name).read_bytes())
    assert analyze.main(arguments) == code
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
