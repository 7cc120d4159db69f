"""`tl-score` as a person runs it: files and pipes in, rows out, one line for each mistake."""

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from torch_linguist.checkpoint import load_run
from torch_linguist.cli import export, score, train
from torch_linguist.evaluation.texts import score_lines
from torch_linguist.model.ngram import NGramModel, write_arpa

pytestmark = pytest.mark.xdist_group("commands")

TEXT = "".join(f"line {number} tells that {number % 7} and {number % 5} meet again .\n" for number in range(300))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    (folder / "tale.txt").write_text(TEXT, encoding="utf-8")
    line = ["data=text", f"data.path={folder / 'tale.txt'}", f"output_dir={folder}", "tokenizer.split=whitespace"]
    assert train.main([*line, "model=ngram", "model.order=3", "name=counted"]) == 0
    small = ["model.embedding_dim=16", "model.hidden_size=16", "optim.lr=0.01", "optim.weight_decay=0"]
    assert train.main([*line, "experiment=debug", "model=lstm", "stages=[fit]", *small, "name=trained"]) == 0
    return folder


def rows_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_an_ngram_scores_lines_as_kenlm_does(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    lines = ["line 1 tells that 3 and 2 meet again .", "meet line 4", "tells that", "again . 3"]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    assert score.main([str(runs / "counted"), str(tmp_path / "lines.txt"), "--log", "10", "--format", "jsonl"]) == 0
    found = [row["log_probability"] for row in rows_of(capsys)]
    run = load_run(runs / "counted")
    assert isinstance(run.model, NGramModel)
    write_arpa(run.model, run.tokenizer.tokens, tmp_path / "model.arpa")
    kenlm = pytest.importorskip("kenlm")
    reference = kenlm.Model(str(tmp_path / "model.arpa"))
    for line, ours in zip(lines, found, strict=True):
        words, total = [*line.split(), "<eos>"], 0.0
        state, following = kenlm.State(), kenlm.State()
        reference.NullContextWrite(state)
        reference.BaseScore(state, "<eos>", following)
        state, following = following, kenlm.State()
        for word in words:
            total += reference.BaseScore(state, word, following)
            state, following = following, kenlm.State()
        assert ours == pytest.approx(total, abs=1e-4)


def test_a_pipe_that_is_closed_ends_it_quietly(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text(TEXT * 50)
    command = [sys.executable, "-m", "torch_linguist.cli.score", str(runs / "counted"), str(tmp_path / "lines.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"line\tlog_probability")
        process.stdout.close()
        complaints = process.stderr.read().decode()
    assert process.returncode == 141  # 128 + SIGPIPE, as of `yes | head -1`.
    assert "Traceback" not in complaints
    assert "error" not in complaints


def test_counting_words_imports_nothing_that_draws_or_composes(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text(TEXT)
    script = (
        "import gc, sys\n"
        "from torch_linguist.cli.score import main\n"
        "code = main(sys.argv[1:])\n"
        "heavy = {'hydra', 'omegaconf', 'pandas', 'pyarrow', 'matplotlib', 'rich', 'sympy', 'torch._dynamo'}\n"
        "sys.exit(str(heavy & set(sys.modules) or '') or code or not gc.isenabled())\n"
    )
    command = [sys.executable, "-c", script, str(runs / "counted"), str(tmp_path / "lines.txt")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert len(process.stdout.splitlines()) == 1 + len(TEXT.splitlines())


def test_standard_input_and_a_column_give_the_same_rows(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    lines = TEXT.splitlines()[:5]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"body": line, "n": n}) + "\n" for n, line in enumerate(lines))
    )
    run = str(runs / "trained")
    assert score.main([run, str(tmp_path / "a.jsonl"), "--column", "body", "--format", "jsonl"]) == 0
    table = rows_of(capsys)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()), encoding="utf-8"))
    assert score.main([run, "--format", "jsonl"]) == 0
    piped = rows_of(capsys)
    assert [row.pop("n") for row in table] == list(range(5))
    assert [{**row, "body": row["text"]} for row in piped] == [{**row, "text": row["body"]} for row in table]


def test_a_mixture_a_filter_and_words(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lines.txt"
    path.write_text(TEXT + "again again 6 6 tells tells\n" * 20)
    both = [str(runs / "counted"), str(runs / "trained"), str(path)]
    assert score.main([*both, "--mix", "--format", "jsonl", "--to", str(tmp_path / "mixed.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "mixed.jsonl").read_text().splitlines()]
    assert {"log_probability_counted", "log_probability_trained", "log_probability_mixture"} <= rows[0].keys()
    share = ["--keep-share", "0.9", "--to", str(tmp_path / "kept.txt")]
    assert score.main([str(runs / "counted"), str(path), *share]) == 0
    kept = (tmp_path / "kept.txt").read_text().splitlines()
    assert len(kept) >= math.ceil(0.9 * 320)
    assert "again again 6 6 tells tells" not in kept
    capsys.readouterr()
    assert score.main([str(runs / "counted"), str(path), "--words", "--format", "jsonl"]) == 0
    assert [row["word"] for row in rows_of(capsys)][:11] == [*TEXT.splitlines()[0].split(), "<eos>"]


def test_kaldi_lists_have_their_new_scores_in_a_file(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("utt-1 tells line 3 that\nutt-2 line 3 tells that\n")
    (tmp_path / "scores").write_text("utt-1 -2.5\nutt-2 -2.5\n")
    lists = ["--nbest", str(tmp_path / "text"), "--nbest-scores", str(tmp_path / "scores"), "--weight", "1"]
    outputs = ["--to", str(tmp_path / "out"), "--scores-to", str(tmp_path / "new")]
    assert score.main([str(runs / "counted"), *lists, *outputs]) == 0
    assert (tmp_path / "out").read_text() == "utt-2 line 3 tells that\nutt-1 tells line 3 that\n"
    run = load_run(runs / "counted")
    texts = [line.partition(" ")[2] for line in (tmp_path / "out").read_text().splitlines()]
    expected = [one.log_probability - 2.5 for one in score_lines(run.model, run.tokenizer, texts)]
    found = [line.split() for line in (tmp_path / "new").read_text().splitlines()]
    assert [key for key, _ in found] == ["utt-2", "utt-1"]
    assert [float(value) for _, value in found] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no_such_file.txt"], 2, "no such run folder or file"),
        (["--format", "xml", "{lines}"], 2, "--format=xml"),
        (["--weights", "0.5", "--", "{lines}"], 2, "--weights 0.5"),
        (["--tokens", "--words", "{lines}"], 2, "--tokens and --words"),
        (["--carry", "--no-eos", "{lines}"], 2, "--no-eos"),
        (["--keep-share", "2", "{lines}"], 2, "--keep-share: 2: must be"),
        (["--pairs", "{lines}"], 1, "holds no pairs"),
        (["--nbest", "{lines}"], 1, "lines.txt, line 1: has no score"),
        (["--nbest", "{lines}", "--scores-to", "new"], 2, "--scores-to: goes with --nbest-scores"),
        (["--precision", "fp8", "{lines}"], 2, "--precision=fp8: must be fp32 or bf16"),
        (["--precision", "bf16", "--tokens", "{lines}"], 2, "goes with scores of lines and --pairs"),
        (["{bad}"], 1, "line 2 is not UTF-8"),
        (["--to", "/dev/full", "{lines}"], 1, "/dev/full"),
        (["--to", "/dev/full", "--keep-share", "1", "{lines}"], 1, "/dev/full: cannot be written"),
        (["--errors", "ignore", "{lines}"], 2, "--errors=ignore"),
        (["--nbest", "{bad}", "{lines}"], 2, "lines.txt: --pairs and --nbest name the only files"),
        (["--mix", "--words", "{lines}"], 2, "--mix and --weights: go with"),
    ],
)
def test_a_mistake_is_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "lines.txt").write_text("a b\n" * 5000)
    (tmp_path / "bad.txt").write_bytes(b"a\n\xff\n")
    files = {"lines": tmp_path / "lines.txt", "bad": tmp_path / "bad.txt"}
    line = [argument.format(**files) for argument in arguments]
    assert score.main([str(runs / "counted"), *line]) == code
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("error: ")
    assert message in complaint


@pytest.mark.parametrize("read", [["{lines}"], ["--pairs", "{folder}"], ["--nbest", "{lines}"], ["--keep-share", "1"]])
def test_no_output_replaces_a_file_that_is_read(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    lines, other_name = tmp_path / "lines.txt", tmp_path / "other_name.txt"
    lines.write_text("a b\n")
    other_name.hardlink_to(lines)  # As another spelling is on a file system that ignores case.
    line = [argument.format(lines=lines, folder=tmp_path) for argument in read]
    with lines.open(encoding="utf-8") as standard_input:
        monkeypatch.setattr(sys, "stdin", standard_input)
        assert score.main([str(runs / "counted"), *line, "--to", str(other_name)]) == 2
    message = f"error: --to={other_name}: is one of the files that are read; name another file"
    assert capsys.readouterr().err.splitlines()[-1] == message
    assert lines.read_text() == "a b\n"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["--hf", "{run}/tokenizer.json"], "--hf={run}/tokenizer.json: is one of the files that are read"),
        (["--arpa", "--output", "{run}/config.yaml"], "--output={run}/config.yaml: is one of the files"),
        (["--hf", "{new}", "--safetensors", "{new}"], "--hf={new}: is the file of two options; name another file"),
    ],
)
def test_no_export_replaces_what_its_run_needs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], outputs: list[str], message: str
) -> None:
    names = {"run": runs / "counted", "new": tmp_path / "new"}
    before = {path: path.read_bytes() for path in (runs / "counted").rglob("*") if path.is_file()}
    assert export.main([str(runs / "counted"), *(output.format(**names) for output in outputs)]) == 2
    assert message.format(**names) in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in (runs / "counted").rglob("*") if path.is_file()} == before
