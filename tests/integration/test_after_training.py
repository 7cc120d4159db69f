"""Scores, generation and export of finished runs, by the commands a person types."""

import csv
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from small_runs import call

from torch_linguist.checkpoint.loaded_run import load_run
from torch_linguist.cli import eval as eval_command
from torch_linguist.cli import export, generate, train
from torch_linguist.data import TextCorpus, prepare
from torch_linguist.evaluation import score

SMALL = ["model.embedding_dim=16", "model.output=full", "optim.lr=0.01", "optim.weight_decay=0", "stages=[fit]"]
PEOPLE, VERBS = ("the king", "a queen", "my sister", "the judge"), ("sees", "finds", "forgets", "paints")

pytestmark = [
    pytest.mark.xdist_group("after_training"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, and four runs on it: lstm, transformer, ngram, and an lstm on bytes."""
    folder = tmp_path_factory.mktemp("after")
    lines = [f"{PEOPLE[n % 4]} {VERBS[n * n % 7 % 4]} the river , and {n % 9} ships ." for n in range(500)]
    (folder / "tale.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "other.txt").write_text("\n".join(f"{line} zebra" for line in lines[:200]) + "\n", encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        common = ["experiment=debug", "data=text", "data.path=tale.txt", "trainer.max_steps=30", "score.precision=fp32"]
        for name, line in {
            "ngram": ["model=ngram", "model.order=3"],
            "transformer": ["model=transformer", "model.num_heads=2", *SMALL],
            "bytes": ["model=lstm", "model.hidden_size=16", "tokenizer=byte", *SMALL],
            "lstm": ["model=lstm", "model.hidden_size=16", *SMALL],
        }.items():
            assert train.main([*common, *line, f"name={name}"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in the workplace; the commands run in this process, which has torch already."""
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return workplace


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_runs_side_by_side(workplace: Path) -> None:
    line = ["outputs/lstm", "outputs/ngram", "--mix", "--split", "valid", "test", "--to", "scores"]
    code, output, errors = call("eval", *line, folder=workplace)
    assert (code, errors) == (0, "")
    rows = {(row["model"], row["split"]): row for row in rows_of(workplace / "scores" / "scores.csv")}
    assert set(rows) == {(model, split) for model in ("lstm", "ngram", "mixture") for split in ("valid", "test")}
    for name in ("lstm", "ngram"):
        summary = json.loads((workplace / "outputs" / name / "summary.json").read_text())
        for split in ("valid", "test"):
            row = rows[name, split]
            assert float(row["perplexity"]) == pytest.approx(summary[split]["perplexity"], rel=1e-6)
            assert float(row["bits_per_byte"]) == pytest.approx(summary[split]["bits_per_byte"], rel=1e-6)
            assert float(row["perplexity_low"]) < float(row["perplexity"]) < float(row["perplexity_high"])
            assert rows["mixture", split]["tokens"] == row["tokens"]
    best = min(float(rows[name, "valid"]["perplexity"]) for name in ("lstm", "ngram"))
    assert float(rows["mixture", "valid"]["perplexity"]) <= best + 1e-6
    differences = rows_of(workplace / "scores" / "differences.csv")
    assert len(differences) == 6  # Three pairs of models on two splits.
    for row in differences:
        losses = [float(rows[row[role], row["split"]]["loss"]) for role in ("model", "better")]
        assert float(row["difference"]) == pytest.approx(losses[0] - losses[1], abs=1e-9)
        assert (row["unit"], 0 < float(row["p_value"]) <= 1) == ("nats per token", True)
    for text in ("each scored once", "<unk> is predicted like any token", "last 2 tokens", "bootstrap over", "95%"):
        assert text in output


def test_the_matrix_of_runs_and_corpora(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["outputs/lstm", "outputs/bytes", "--data", "tale.txt", "text:other.txt", "--to", "matrix"]
    assert eval_command.main(line) == 0
    output = capsys.readouterr().out
    rows = {(row["model"], row["data"]): row for row in rows_of(here / "matrix" / "scores.csv")}
    assert len(rows) == 4
    for name in ("lstm", "bytes"):
        loaded = load_run(here / "outputs" / name)
        for file in ("tale.txt", "other.txt"):
            corpus = prepare(TextCorpus(str(here / file)), None, tokenizer=loaded.tokenizer)
            expected = score(loaded.model, corpus.test)
            row = rows[name, f"text:{file}"]
            assert float(row["bits_per_byte"]) == pytest.approx(expected.bits_per_byte, rel=1e-9)
            assert float(row["oov_rate"]) == expected.oov_rate
            assert (expected.oov_rate > 0.05) == (name == "lstm" and file == "other.txt")
    # Words and bytes share no tokens: they are compared by the bits of the same text.
    assert {row["unit"] for row in rows_of(here / "matrix" / "differences.csv")} == {"bits per byte"}
    assert "flatter the model with the higher OOV rate" in output
    picture = (here / "matrix" / "matrix-test.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_adaptation_is_tuned_on_valid(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["outputs/lstm", "--cache", "50", "--dynamic", "--segment", "16", "--tune-tokens", "200", "--to", "adapted"]
    assert eval_command.main(line) == 0
    output = capsys.readouterr().out
    rows = {row["model"]: row for row in rows_of(here / "adapted" / "scores.csv")}
    assert set(rows) == {"lstm", "lstm + cache", "lstm + dynamic", "lstm + dynamic + cache"}
    assert len({row["tokens"] for row in rows.values()}) == 1
    # The text repeats itself, and the model has learned little of it in thirty updates.
    assert float(rows["lstm + dynamic"]["perplexity"]) < float(rows["lstm"]["perplexity"])
    assert output.count("of the first 200 tokens of valid") + output.count("on the first 200 tokens of valid") == 3


def test_a_window_is_printed_and_can_be_chosen(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eval_command.main(["outputs/transformer", "--stride", "3"]) == 0
    assert "transformer: windows of 32 tokens, stride 3" in capsys.readouterr().out
    assert eval_command.main(["outputs/transformer"]) == 0
    assert "transformer: windows of 32 tokens, stride 16" in capsys.readouterr().out


def test_the_newest_run_in_four_formats(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(["--jit", "--pt2", "--onnx", "--quantize", "int8", "--check-tokens", "300"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    folder = here / "outputs" / "lstm"
    assert output.startswith("run: outputs/lstm (the newest)\n")
    assert output.count("as the eager model's, on the first ") == 3
    assert "before: " in output
    for name in ("model.jit", "model.pt2", "model.onnx", "model.int8.jit"):
        assert (folder / name).is_file()
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    summary = json.loads((folder / "summary.json").read_text())
    for text in (f"{summary['test']['perplexity']:,.2f}", "tl-export --jit --pt2", "## Limits", "model.onnx", "text"):
        assert text in card


def test_a_mixture_is_one_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["outputs/lstm", "outputs/ngram", "--jit", "--output", "mixed.jit", "--check-tokens", "300"]
    assert export.main(line) == 0
    assert "mixture, fitted on valid: " in capsys.readouterr().out
    module = torch.jit.load("mixed.jit")  # type: ignore[no-untyped-call]
    assert module.generate("the king", 5, 0.0).startswith("the king")
    assert export.main(["outputs/lstm", "outputs/bytes", "--jit"]) == 2
    assert "another tokenizer" in capsys.readouterr().err


def test_a_run_and_its_file_say_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(["outputs/ngram", "--jit", "--check-tokens", "0"]) == 0
    capsys.readouterr()
    shutil.copy(here / "outputs" / "ngram" / "model.jit", here / "alone.jit")
    said = []
    for source in ("outputs/ngram", "alone.jit"):
        line = [source, "-p", "the king", "-p", "a queen finds", "--seed", "3", "--max-tokens", "8", "--top-p", "0.9"]
        assert generate.main(line) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0].startswith("the king ")
    # Without the package too: its own text in, its own text out.
    module = torch.jit.load("alone.jit")  # type: ignore[no-untyped-call]
    assert said[0].startswith(module.generate("the king", 8, 1.0, 0, 0.9, 3))


def test_prompts_from_standard_input_and_a_file(workplace: Path) -> None:
    (workplace / "prompts.txt").write_text("a queen\nthe zzz\n", encoding="utf-8")
    line = ["outputs/lstm", "--prompts", "-", "--max-tokens", "4", "--seed", "1", "-n", "2"]
    code, output, errors = call("generate", *line, folder=workplace, given="the king\nmy sister\n")
    assert (code, errors) == (0, "")
    assert [part.count("[1]\n") + part.count("[2]\n") for part in output.split("\n\n")[:2]] == [2, 2]
    assert output.count("the king") >= 2
    code, output, errors = call(
        "generate", "--prompts", "prompts.txt", "--greedy", "--max-tokens", "3", folder=workplace
    )
    assert code == 0
    assert output.startswith("a queen")
    assert errors.endswith("note: not in the vocabulary, read as <unk>: zzz\n")


def test_probabilities_and_beams_are_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["outputs/ngram", "-p", "the king", "--show-probabilities", "3", "--max-tokens", "4"]) == 0
    output = capsys.readouterr().out
    assert "most probable" in output
    assert output.rstrip().splitlines()[-1].startswith("the king")
    assert generate.main(["outputs/ngram", "-p", "the king", "--beams", "3", "--max-tokens", "4"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "log-probability" in line]
    values = [float(line.rpartition(" ")[2]) for line in shown]
    assert len(values) == 3
    assert values == sorted(values, reverse=True)


def test_suggestions_without_a_terminal(workplace: Path) -> None:
    code, output, errors = call("generate", "-i", "outputs/ngram", folder=workplace, given="the ki\n\nthe judge \n")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[1].startswith("  next: king ")
    assert any(word in lines[-1] for word in VERBS)
    assert math.isfinite(float(lines[0].split()[1].replace(",", "")))


def test_a_text_longer_than_the_context_is_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["outputs/transformer", "-p", "the king sees the river . " * 20, "--max-tokens", "3", "--seed", "1"]
    assert generate.main(line) == 0
    assert capsys.readouterr().out.startswith("the king sees")
    assert generate.main(["outputs/lstm", "-p", "", "--max-tokens", "3", "--seed", "1"]) == 0
    assert capsys.readouterr().out.strip()


def damaged(folder: Path, name: str) -> None:
    """Makes the runs that the mistakes below are about."""
    source, made = folder / "outputs" / "lstm", folder / name
    if made.exists():
        return
    shutil.copytree(source, made)
    if name == "unfinished":
        shutil.rmtree(made / "checkpoints")
    elif name == "newer":
        content = torch.load(made / "checkpoints" / "best.pt", weights_only=True)
        torch.save({**content, "format": 99}, made / "checkpoints" / "best.pt")
        for extra in made.glob("checkpoints/*.sha256"):
            extra.unlink()


@pytest.mark.parametrize(
    ("command", "line", "code", "message"),
    [
        ("eval", ["unfinished"], 1, "no such checkpoint; the run has not reached its first validation"),
        ("generate", ["unfinished"], 1, "no such checkpoint"),
        ("export", ["unfinished", "--jit"], 1, "no such checkpoint"),
        ("eval", ["newer"], 1, "written by another version"),
        ("generate", ["newer"], 1, "written by another version"),
        ("eval", ["outputs/lstm", "--data", "nothing"], 2, "data=nothing: there is no such data"),
        ("eval", ["outputs/lstm", "--data", "text:none.txt"], 1, "none.txt"),
        ("eval", ["outputs/lstm", "outputs/bytes", "--mix"], 2, "has another tokenizer than"),
        ("eval", ["outputs/transformer", "--stride", "99"], 1, "score.stride=99: must lie between 1 and"),
        ("eval", ["outputs/ngram", "--cache"], 2, "no run has hidden vectors"),
        ("eval", ["outputs/ngram", "--dynamic"], 2, "no run has weights to train"),
        ("eval", ["outputs/lstm", "--mix"], 2, "--mix: takes two runs or more"),
        (
            "generate",
            ["outputs/lstm", "--top-p", "0"],
            2,
            "--top-p: 0: must be a finite number greater than 0 and at most 1",
        ),
        (
            "generate",
            ["outputs/lstm", "--temperature", "0"],
            2,
            "--temperature: 0: must be a finite number greater than 0",
        ),
        ("generate", ["outputs/lstm", "--max-tokens", "0"], 2, "--max-tokens: 0: must be between 1 and 1,000,000"),
        ("generate", ["outputs/lstm", "--prompts", "none.txt"], 1, "none.txt: cannot be read"),
        ("generate", ["outputs/lstm", "--prompts", "empty.txt"], 2, "holds no prompt"),
        ("generate", ["outputs/lstm", "--beams", "0"], 2, "--beams: 0: must be between 1 and 1,000"),
        ("generate", ["outputs/lstm", "--beams", str(10**18)], 2, "must be between 1 and 1,000"),
        ("generate", ["outputs/lstm", "--seed", "-1"], 2, "--seed: -1: must be between 0 and"),
        ("eval", ["outputs/lstm", "--segment", str(10**18)], 2, "must be between 1 and 1,000,000,000"),
        ("generate", ["tale.txt"], 1, "neither a run folder nor a complete file of tl-export"),
        ("generate", ["nowhere"], 1, "nowhere: no such run; the newest runs are outputs/lstm, "),
        ("export", ["outputs/lstm"], 2, "choose a format"),
        ("export", ["outputs/ngram", "--onnx"], 1, "is no graph of tensor operations"),
        ("export", ["outputs/ngram", "--pt2"], 1, "is no graph of tensor operations"),
        ("export", ["outputs/ngram", "--quantize", "int8"], 1, "no weights to quantize"),
        ("export", ["outputs/lstm", "--jit", "--onnx", "--output", "x"], 2, "names one file, but 2 formats"),
        ("export", ["outputs/lstm", "--jit", "--output", "no/such/place.jit"], 1, "cannot be written"),
    ],
)
def test_mistakes_end_in_one_line(
    command: str, line: Sequence[str], code: int, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("unfinished", "newer"):
        damaged(here, name)
    (here / "empty.txt").write_text("\n")
    main = {"eval": eval_command.main, "generate": generate.main, "export": export.main}[command]
    assert main([*line, *(["--check-tokens", "0"] if command == "export" else [])]) == code
    output, errors = capsys.readouterr()
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert errors.startswith("error: ")
    assert "Traceback" not in output + errors
