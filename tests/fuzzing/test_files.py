"""Whatever befalls a file that the package reads, what comes out is the content or a one-line error of its own."""

import json
import shutil
from collections.abc import Callable
from copy import copy as copy_of
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from torch_linguist.checkpoint import read_checkpoint, save_checkpoint
from torch_linguist.checkpoint.loaded_run import load_run
from torch_linguist.cli.entry import describe
from torch_linguist.config.checking.node_checks import check_types
from torch_linguist.config.composition import compose_config
from torch_linguist.config.plain import to_yaml
from torch_linguist.config.stored_config import read_run_config
from torch_linguist.data import TokenizedCorpus
from torch_linguist.data.cache import _open
from torch_linguist.errors import LinguistError
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
Damage = Callable[[bytes], bytes]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """A way to damage a file: a few flipped bits, a cut, a stretch doubled, lost, or replaced by something odd."""
    kind = draw(st.sampled_from(["flip", "cut", "lose", "double", "replace"]))
    places = draw(st.lists(st.floats(0, 0.999999), min_size=1, max_size=4))
    length = draw(st.sampled_from([1, 3, 16, 200]))
    odd = draw(
        st.one_of(
            st.binary(min_size=1, max_size=12),
            st.sampled_from(
                [b"-1", b"1e999", b"99999999999999999999", b"null", b"[" * 3000, b'"', b"{}", b"nan", b"\n"]
            ),
        )
    )
    bit = draw(st.integers(0, 7))

    def damage(content: bytes) -> bytes:
        at = int(places[0] * len(content))
        if kind == "cut":
            return content[:at]
        if kind == "lose":
            return content[:at] + content[at + length :]
        if kind == "double":
            return content[: at + length] + content[at:]
        if kind == "replace":
            return content[:at] + odd + content[at + length :]
        flipped = bytearray(content)
        for place in places:
            flipped[int(place * len(content))] ^= 1 << bit
        return bytes(flipped)

    return damage


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


def survives(path: Path, damage: Damage, read: Callable[[], object]) -> bool:
    """Whether a damaged file is read, or ends in one short line of ours; whatever else it raises is raised."""
    whole, message, lines = path.read_bytes(), "", 0
    path.write_bytes(damage(whole))
    try:
        read()
    except LinguistError as error:
        message, lines = describe(error), str(error).count("\n")
    finally:
        path.write_bytes(whole)
    return lines == 0 and len(message) < 1000


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
EXAMPLES = {"config.yaml": 40, "grid.csv": 10}
LENIENT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_run_ends_in_one_line(name: str, copy: Path) -> None:
    @settings(max_examples=EXAMPLES.get(name, 80), deadline=None, suppress_health_check=LENIENT)
    @given(damage=damages())
    def check(damage: Damage) -> None:
        assert survives(copy / name.partition(",")[0], damage, lambda: READERS[name](copy))

    check()


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "train.ids", "valid.lines", "token_counts"])
def test_a_damaged_cache_is_noticed(name: str, tiny_corpus: TokenizedCorpus, tmp_path: Path) -> None:
    """Either it is opened with the very same ids, or it counts as damaged and is built anew."""
    folder = Path(shutil.copytree(tiny_corpus.folder, tmp_path / tiny_corpus.folder.name))

    @settings(max_examples=40, deadline=None, suppress_health_check=LENIENT)
    @given(damage=damages())
    def check(damage: Damage) -> None:
        def read() -> None:
            found = _open(folder, tiny_corpus.fingerprint)
            assert found is None or (found.train.ids == tiny_corpus.train.ids).all()

        assert survives(folder / name, damage, read)

    check()


@settings(max_examples=80, deadline=None, suppress_health_check=LENIENT)
@given(damage=damages())
def test_a_damaged_arpa_file_ends_in_one_line(damage: Damage, tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    path.write_bytes(ARPA.read_bytes())
    assert survives(path, damage, lambda: read_arpa(path))


@settings(max_examples=60, deadline=None, suppress_health_check=LENIENT)
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@pytest.mark.parametrize("name", [name for name in READERS if not name.startswith("grid.csv")])
def test_any_bytes_at_all(name: str, content: bytes, copy: Path) -> None:
    assert survives(copy / name.partition(",")[0], lambda _: content, lambda: READERS[name](copy))


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
    make_context: Callable[..., TrainingContext], build_model: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    """Whole files by their checksums, whose values are not those of a training."""
    context = make_context(max_steps=2, average="ema", sample_every=0)
    model = build_model("lstm", context.corpus.tokenizer.vocab_size, embedding_dim=4, hidden_size=4, num_layers=1)
    Fit(model, context, 0.01, 0.0, tmp_path).run()
    path = tmp_path / "checkpoints" / "last.pt"
    content = read_checkpoint(path)
    places = [place for place in leaves(content) if place and place[:2] != ("progress", "random")]
    places += [("progress", "random", key) for key in content["progress"]["random"]]

    @settings(max_examples=100, deadline=None, suppress_health_check=LENIENT)
    @given(place=st.sampled_from(places), odd=st.sampled_from(ODD_VALUES))
    @example(place=("format",), odd=torch.zeros(0))
    def check(place: tuple[object, ...], odd: object) -> None:
        torch.save(replaced(content, place, odd), path)
        message = ""
        try:
            Fit(model, context, 0.01, 0.0, tmp_path, resume=path)
        except LinguistError as error:
            message = str(error)
        assert "\n" not in message

    check()
