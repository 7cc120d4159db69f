"""Whatever befalls a file that the package reads, what comes out is the content or a one-line error of its own."""

import functools
import gzip
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from copy import copy as copy_of
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import made_text
from damage import damaged

from torch_linguist.checkpoint import read_checkpoint, save_checkpoint
from torch_linguist.checkpoint.loaded_run import load_run
from torch_linguist.config.checking.node_checks import check_types
from torch_linguist.config.composition import compose_config
from torch_linguist.config.plain import to_yaml
from torch_linguist.config.stored_config import read_run_config
from torch_linguist.data import InMemoryCorpus, TextCorpus, TokenizedCorpus, WordTokenizerTrainer, prepare
from torch_linguist.errors import LinguistError, describe
from torch_linguist.evaluation.texts.nbest import read_keyed, read_nbest, read_scores, tune
from torch_linguist.evaluation.texts.pair_evaluation import read_pairs
from torch_linguist.evaluation.texts.records import RecordReader, plain_lines
from torch_linguist.generation.prompts import read_prompts
from torch_linguist.model import LanguageModel
from torch_linguist.model.ngram import read_arpa
from torch_linguist.pipeline.grid_table import COLUMNS, read_points
from torch_linguist.pipeline.progress import Progress
from torch_linguist.report.plots import plot_grid
from torch_linguist.runs.csv_table import drop_rows_after
from torch_linguist.sweep.outcomes import read_summary
from torch_linguist.sweep.sweep_folder import read_identity
from torch_linguist.trainer import Callback, Fit, TrainingContext
from torch_linguist.trainer.callbacks.recorded_progress import read_recorded_progress
from torch_linguist.trainer.randomness import random_state

ARPA = Path(__file__).resolve().parents[1] / "assets" / "ngram" / "kenlm.arpa"
Rounds = Callable[[int], Iterator[tuple[int, random.Random]]]

pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def run_folder(
    tiny_corpus: TokenizedCorpus, build_model: Callable[..., LanguageModel], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What a run leaves, as small as it can be."""
    folder = tmp_path_factory.mktemp("run")
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=4, num_layers=1)
    for name in ("best.pt", "last.pt"):
        save_checkpoint(folder / "checkpoints" / name, model, {"step": 3, "random": random_state()})
    tiny_corpus.tokenizer.save(folder / "tokenizer.json")
    composition = compose_config(["experiment=debug"])
    (folder / "config.yaml").write_text(to_yaml(check_types(composition.config), composition.choices))
    summary = {"status": "finished", "valid": {"loss": 1.5}, "artifacts": {"best": "checkpoints/best.pt"}}
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [dict.fromkeys(COLUMNS, "1"), dict.fromkeys(COLUMNS, "2")]
    for index, row in enumerate(rows):
        row |= {"point": str(index), "lr": "0.001", "weight_decay": str(index / 10), "status": "finished"}
        row |= {"steps": "20", "valid_loss": "5.2", "train_loss": "5.1"}
    lines = [",".join(COLUMNS), *(",".join(row.values()) for row in rows)]
    (folder / "grid.csv").write_text("\n".join(lines) + "\n")
    (folder / "metrics.csv").write_text("step,valid_loss\n10,\n20,5.5\n30,5.1\n")
    (folder / "pace.csv").write_text("step,progress\n1,0.0\n2,0.25\n3,0.5\n")
    (folder / "progress.json").write_text(json.dumps({"stages": {"check": {"loss": 3.5}}, "corpus": {}, "changes": []}))
    (folder / "sweep.json").write_text(json.dumps({"overrides": ["model=gru"]}))
    return folder


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def faults_of(path: Path, read: Callable[[], object], rounds: Iterator[tuple[int, random.Random]]) -> list[str]:
    """Damage a file again and again; return every round in which it is neither read nor refused in one short line."""
    whole, found = path.read_bytes(), []
    for number, source in rounds:
        path.write_bytes(damaged(whole, source))
        message = ""
        try:
            read()
        except LinguistError as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001 - whatever is raised is a finding.
            found.append(f"round {number}: {path.name}: {type(error).__name__}: {error}")
        if "\n" in message.strip() or len(describe(LinguistError(message))) >= 1000:
            found.append(f"round {number}: {path.name}: {message}")
    path.write_bytes(whole)
    return found


def go_on(folder: Path) -> object:
    drop_rows_after(folder / "metrics.csv", 20)
    return read_recorded_progress(folder)


READERS: dict[str, Callable[[Path], object]] = {
    "checkpoints/best.pt": load_run,
    "checkpoints/last.pt": lambda folder: read_checkpoint(folder / "checkpoints" / "last.pt"),
    "tokenizer.json": load_run,
    "summary.json": lambda folder: (load_run(folder), read_summary(folder)),
    "config.yaml": lambda folder: check_types(read_run_config(folder)[0]),
    "grid.csv": lambda folder: plot_grid(folder / "grid.csv", folder / "grid.png"),
    "grid.csv, to go on": lambda folder: read_points(folder / "grid.csv", [(0.001, 0.0), (0.001, 0.1)], 20),
    "metrics.csv": go_on,
    "pace.csv": read_recorded_progress,
    "progress.json": lambda folder: Progress(folder, Callback(), {}, resume=True),
    "sweep.json": read_identity,
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_run_ends_in_one_line(name: str, copy: Path, rounds: Rounds) -> None:
    assert faults_of(copy / name.partition(",")[0], lambda: READERS[name](copy), rounds(10)) == []


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "train.ids", "valid.lines", "token_counts"])
def test_a_damaged_cache_is_noticed(
    name: str, tiny_corpus: TokenizedCorpus, source_corpus: InMemoryCorpus, tmp_path: Path, rounds: Rounds
) -> None:
    """Either it is opened with the very same ids, or it counts as damaged and is built anew."""
    folder = Path(shutil.copytree(tiny_corpus.folder, tmp_path / tiny_corpus.folder.name))

    def read() -> None:
        found = prepare(source_corpus, WordTokenizerTrainer(min_frequency=1), tmp_path)
        assert (found.train.ids == tiny_corpus.train.ids).all()

    assert faults_of(folder / name, read, rounds(5)) == []


def test_a_damaged_arpa_file_ends_in_one_line(tmp_path: Path, rounds: Rounds) -> None:
    path = Path(shutil.copy(ARPA, tmp_path / "model.arpa"))
    assert faults_of(path, lambda: read_arpa(path), rounds(20)) == []


TABLE = [{"text": f"the king sees {number}", "year": number, "kind": "a,b"} for number in range(60)]


def as_csv(delimiter: str) -> bytes:
    return b"\n".join(delimiter.join(map(str, row)).encode() for row in [TABLE[0], *(one.values() for one in TABLE)])


def as_parquet() -> bytes:
    frame = io.BytesIO()
    pd.DataFrame(TABLE).to_parquet(frame)
    return frame.getvalue()


TEXT = made_text(60, 1).encode()
JSON_LINES = "\n".join(map(json.dumps, TABLE)).encode()
SOURCES: dict[str, bytes] = {
    "a.txt": TEXT,
    "a.txt.gz": gzip.compress(TEXT),
    "a.csv": as_csv(",").replace(b"a,b", b'"a,b"'),
    "a.tsv": as_csv("\t"),
    "a.jsonl": JSON_LINES,
    "a.json": json.dumps(TABLE).encode(),
    "a.parquet": as_parquet(),
}


@pytest.mark.parametrize("name", SOURCES)
def test_damaged_texts_end_in_one_line(name: str, tmp_path: Path, rounds: Rounds) -> None:
    """As the corpus of a training, and as the input of `tl-score`."""
    (tmp_path / name).write_bytes(SOURCES[name])

    def read() -> None:
        corpus = TextCorpus(str(tmp_path / name))
        for split in corpus.splits():
            for document in corpus.documents(split):
                assert isinstance(document.text, str)

    assert faults_of(tmp_path / name, read, rounds(10)) == []
    for errors in ("strict", "skip"):
        read_records = functools.partial(RecordReader, [str(tmp_path / name)], "text", errors)
        assert faults_of(tmp_path / name, lambda: list(read_records()), rounds(5)) == []  # noqa: B023


def nbest(path: Path) -> object:
    return tune(
        list(read_nbest(RecordReader([str(path)]))), read_keyed(plain_lines(str(path.with_name("refs"))), "refs")
    )


TASKS: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "prompts.txt": (TEXT, read_prompts),
    "pairs.jsonl": (
        b"\n".join(b'{"sentence_good": "a b", "sentence_bad": "b a", "UID": "x"}' for _ in range(20)),
        lambda path: read_pairs([str(path)]),
    ),
    "pairs.tsv": (b"the king\tking the\n" * 20, lambda path: read_pairs([str(path)])),
    "moses.txt": (b"".join(b"%d ||| the king ||| lm: 1 ||| -%d.5\n" % (n % 3, n) for n in range(20)), nbest),
    "nbest.jsonl": (b'{"id": "1", "text": "the king", "score": -2.5}\n' * 20, nbest),
    "scores.txt": (b"1-1 2.5\n1-2 3.5\n", lambda path: read_scores(plain_lines(str(path)), str(path))),
}


@pytest.mark.parametrize("name", TASKS)
def test_damaged_inputs_of_tasks_end_in_one_line(name: str, tmp_path: Path, rounds: Rounds) -> None:
    content, read = TASKS[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "refs").write_text("0 the king\n1 the king\n2 a\n")
    assert faults_of(tmp_path / name, lambda: read(tmp_path / name), rounds(10)) == []


def leaves(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The places of everything in nested dicts and lists, the inner nodes too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in items for place in leaves(child, (*path, key)))]


def replaced(value: Any, path: tuple[object, ...], odd: object) -> Any:
    if not path:
        return odd
    changed = copy_of(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], odd)
    return changed


ODD_VALUES: list[Any] = [None, -1, 10**18, 1.5, float("nan"), "x", [], {}, [None], torch.zeros(0), torch.zeros(3)]


def test_a_state_with_odd_values_is_taken_up_or_named(
    make_context: Callable[..., TrainingContext],
    build_model: Callable[..., LanguageModel],
    tmp_path: Path,
    rounds: Rounds,
) -> None:
    """Whole files by their checksums, whose values are not those of a training."""
    context = make_context(max_steps=2, average="ema", sample_every=0)
    model = build_model("lstm", context.corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=4, num_layers=1)
    Fit(model, context, 0.01, 0.0, tmp_path).run()
    path = tmp_path / "checkpoints" / "last.pt"
    content = read_checkpoint(path)
    places = [place for place in leaves(content) if place and place[:2] != ("progress", "random")]
    places += [("progress", "random", key) for key in content["progress"]["random"]]

    for number, source in rounds(20):
        place, odd = (source.choice(places), source.choice(ODD_VALUES)) if number else (("format",), torch.zeros(0))
        torch.save(replaced(content, place, odd), path)
        message = ""
        try:
            Fit(model, context, 0.01, 0.0, tmp_path, resume=path)
        except LinguistError as error:
            message = str(error)
        assert "\n" not in message, f"round {number}: {place}"
