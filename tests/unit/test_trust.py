"""A run folder, a checkpoint and a token cache are data, perhaps a stranger's: none executes or reads what it names."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_linguist.checkpoint import load_model, save_checkpoint
from torch_linguist.checkpoint.loaded_run import load_run
from torch_linguist.config.checking.node_checks import check_types
from torch_linguist.config.checking.targets import check_targets
from torch_linguist.config.composition import compose_config
from torch_linguist.config.plain import to_yaml
from torch_linguist.config.stored_config import read_run_config
from torch_linguist.data import InMemoryCorpus, TokenizedCorpus, Tokenizer, WordTokenizerTrainer, prepare
from torch_linguist.data.encoding import manifest_checksum
from torch_linguist.errors import ConfigError, DataError, LinguistError, TrainingError
from torch_linguist.model import LanguageModel

ModelBuilder = Callable[..., LanguageModel]
MARK = "someone was here"


@pytest.fixture(scope="module")
def config_text() -> str:
    composition = compose_config(["experiment=debug"])
    return to_yaml(check_types(composition.config), composition.choices)


@pytest.fixture
def folder(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, config_text: str, tmp_path: Path
) -> Path:  # fmt: skip
    run = tmp_path / "run"
    save_checkpoint(run / "checkpoints" / "best.pt", build_model("gru", tiny_corpus.tokenizer.vocab_size), {})
    tiny_corpus.tokenizer.save(run / "tokenizer.json")
    (run / "config.yaml").write_text(config_text)
    (run / "summary.json").write_text(json.dumps({"status": "finished"}))
    return run


CONFIGS = {
    "a command": ("data", "{_target_: os.system, command: 'touch MARK'}"),
    "a command deep within": ("model", "{_target_: torch_linguist.model.GRU, x: {_target_: os.system, c: touch MARK}}"),
    "a command in a list": ("stages", "[{_target_: subprocess.run, args: [touch, MARK]}]"),
    "a class of ours that writes": ("model", "{_target_: torch_linguist.data.encoding.HashedFile, path: MARK}"),
    "another that writes": ("trainer", "{_target_: torch_linguist.runs.csv_table.Table, path: MARK, columns: [a]}"),
    "a model where a corpus should be": ("data", "{_target_: torch_linguist.model.GRU, vocab_size: 3}"),
    "arguments by position": ("optim", "{_target_: torch.optim.SGD, _args_: [[1]]}"),
    "a bound class": ("data", "{_target_: torch_linguist.data.TextCorpus, _partial_: true, path: x}"),
    "the environment": ("name", "'${oc.env:SECRET}'"),
    "the environment within a text": ("data", "{_target_: torch_linguist.data.TextCorpus, path: 'x${oc.env:SECRET}'}"),
    "another value": ("name", "${output_dir}"),
    "a Python object": ("name", "!!python/object/apply:os.system ['touch MARK']"),
    "a Python name": ("name", "!!python/name:os.system"),
    "a tag of its own": ("name", "!secret x"),
    "references": ("name", "[&a [1, 1], *a, *a]"),
    "endless nesting": ("name", "[" * 5000 + "]" * 5000),
    "settings of Hydra": ("hydra", "{run: {dir: MARK}, job_logging: {_target_: os.system}}"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_malicious_configuration(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config_text: str
) -> None:
    monkeypatch.setenv("SECRET", "xyzzy")
    monkeypatch.chdir(tmp_path)
    key, value = CONFIGS[case]
    kept = "".join(f"{part}" for part in _sections(config_text) if not part.startswith(f"{key}:"))
    (folder / "config.yaml").write_text(f"{kept}{key}: {value.replace('MARK', MARK)}\n")
    with pytest.raises(LinguistError) as caught:
        check_types(read_run_config(folder)[0])
    assert "\n" not in str(caught.value)
    assert "xyzzy" not in str(caught.value)
    assert not (tmp_path / MARK).exists()


def _sections(text: str) -> list[str]:
    """The top-level entries of a YAML text."""
    sections: list[str] = []
    for line in text.splitlines(keepends=True):
        if line[0] in " -":
            sections[-1] += line
        else:
            sections.append(line)
    return sections


def test_the_same_file_unharmed_is_read(folder: Path, config_text: str) -> None:
    assert "".join(_sections(config_text)) == config_text
    assert check_types(read_run_config(folder)[0]).model


def test_a_configuration_of_a_gibibyte_is_not_read(folder: Path) -> None:
    with (folder / "config.yaml").open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(LinguistError, match="more than tl-train ever writes"):
        read_run_config(folder)


def test_every_choice_of_ours_may_stand_in_its_place() -> None:
    for line in (["optim=sgd", "schedule=plateau"], ["model=ngram", "tokenizer=bpe"], ["data=wikitext2"]):
        config: Any = check_types(compose_config(line).config)
        check_targets({key: dict(config[key]) for key in ("data", "model", "optim", "schedule", "tokenizer")})


@pytest.mark.parametrize("name", ["config.yaml", "tokenizer.json", "summary.json", "checkpoints/best.pt", "events"])
@pytest.mark.parametrize("link", ["absolute", "relative", "nowhere", "circle"])
def test_a_link_out_of_the_folder_is_refused(name: str, link: str, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("a secret")
    path = folder / name
    targets = {
        "absolute": outside,
        "relative": Path(os.path.relpath(outside, path.parent)),
        "nowhere": tmp_path / "no such file",
        "circle": path,
    }
    path.unlink(missing_ok=True)
    path.symlink_to(targets[link])
    for read in (load_run, read_run_config):
        with pytest.raises(LinguistError, match=f"run: {name} is a link to") as caught:
            read(folder)
        assert "secret" not in str(caught.value)


def test_links_within_and_to_the_folder_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "newest.pt").symlink_to("checkpoints/best.pt")
    (tmp_path / "alias").symlink_to(folder)
    assert load_run(tmp_path / "alias").summary == {"status": "finished"}


def test_artifacts_of_a_summary_are_names_that_nobody_follows(folder: Path) -> None:
    paths = {"best": "/etc/passwd", "tokenizer": "../../../etc/passwd", "jit": "\0"}
    (folder / "summary.json").write_text(json.dumps({"artifacts": paths}))
    assert isinstance(load_run(folder).model, LanguageModel)


def rewritten(path: Path, **changes: Any) -> Path:
    torch.save(torch.load(path, weights_only=True) | changes, path)
    return path


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("vocab_size", 10**12),
        ("hidden_size", 10**9),
        ("num_layers", 10**15),
        ("hidden_size", 60_000),
        ("num_layers", 60_000),
        ("dropout", "x"),
    ],
)
def test_a_checkpoint_cannot_ask_for_more_than_it_holds(argument: str, value: Any, folder: Path) -> None:
    path = folder / "checkpoints" / "best.pt"
    model = torch.load(path, weights_only=True)["model"]
    rewritten(path, model=model | {"arguments": model["arguments"] | {argument: value}})
    with pytest.raises(TrainingError, match=r"best\.pt: ") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "weights",
    [
        None,
        [1.0],
        {"embedding.weight": [1.0]},
        {"embedding.weight": torch.zeros(1).expand(10**6, 10**6)},
        {"embedding.weight": torch.zeros(3, 3).to_sparse()},
        {1: torch.zeros(3)},
        {},
    ],
    ids=["none", "list", "numbers", "expanded", "sparse", "unnamed", "empty"],
)
def test_weights_that_are_none(weights: Any, folder: Path) -> None:
    path = rewritten(folder / "checkpoints" / "best.pt", weights=weights)
    with pytest.raises(TrainingError, match=r"best\.pt: its weights do not fit"):
        load_model(path)


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    path = folder / "checkpoints" / "best.pt"
    weights = torch.load(path, weights_only=True)["weights"]
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].view(-1)[-1] = math.nan
    rewritten(path, weights=weights)
    with pytest.raises(TrainingError, match=rf"best\.pt: '{name}' holds values that are no numbers"):
        load_model(path)


@pytest.mark.parametrize("kind", ["wrong types", "ids with gaps", "a number", "deep", "a file"])
def test_a_malicious_tokenizer(kind: str, tiny_corpus: TokenizedCorpus, tmp_path: Path) -> None:
    content: Any = json.loads(tiny_corpus.tokenizer.to_json())
    if kind == "wrong types":
        content["model"]["vocab"] = {"<eos>": "zero"}
    elif kind == "ids with gaps":
        content["model"]["vocab"]["<eos>"] = 4_000_000_000
    elif kind == "a number":
        content = 3
    elif kind == "a file":
        content["model"] = {"type": "WordLevel", "vocab": "/etc/passwd", "unk_token": "<unk>"}
    text = "[" * 100_000 if kind == "deep" else json.dumps(content)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(DataError) as caught:
        Tokenizer.load(tmp_path / "tokenizer.json")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_a_gibibyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(DataError, match=r"more than a tokenizer\.json may have"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def _name_outside(manifest: dict[str, Any]) -> None:
    manifest["files"]["../../../../../../etc/passwd"] = {"size": Path("/etc/passwd").stat().st_size, "sha256": ""}


def _split_outside(manifest: dict[str, Any]) -> None:
    manifest["splits"]["../outside"] = dict(manifest["splits"]["train"])


def _of_objects(manifest: dict[str, Any]) -> None:
    manifest["dtype"] = "O"


def _of_wide_ids(manifest: dict[str, Any]) -> None:
    manifest["dtype"] = "uint32"


def _absurd_sizes(manifest: dict[str, Any]) -> None:
    manifest["splits"]["train"]["tokens"] = 10**18


def _negative(manifest: dict[str, Any]) -> None:
    manifest["splits"]["valid"]["words"] = -1


def _unlisted(manifest: dict[str, Any]) -> None:
    manifest["files"].clear()


@pytest.mark.parametrize(
    "change", [_name_outside, _split_outside, _of_objects, _of_wide_ids, _absurd_sizes, _negative, _unlisted]
)
def test_a_malicious_token_cache_is_rebuilt(
    change: Callable[[dict[str, Any]], None],
    source_corpus: InMemoryCorpus,
    tiny_corpus: TokenizedCorpus,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = Path(shutil.copytree(tiny_corpus.folder, tmp_path / tiny_corpus.folder.name))
    for kind in ("ids", "lines", "documents", "metadata.jsonl"):  # What a path out of the folder would find.
        shutil.copy(folder / f"train.{kind}", tmp_path / f"outside.{kind}")
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest["sha256"] = manifest_checksum(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    again = prepare(source_corpus, WordTokenizerTrainer(min_frequency=1), tmp_path)
    assert f"{folder}: damaged token cache" in caplog.text
    assert (again.folder, set(again.streams)) == (folder, {"train", "valid", "test"})
    assert (again.train.ids == tiny_corpus.train.ids).all()


def test_ids_past_the_vocabulary_are_found(
    source_corpus: InMemoryCorpus, tiny_corpus: TokenizedCorpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The checksum fits the ids, because whoever changes the ids can change it too."""
    import hashlib

    folder = Path(shutil.copytree(tiny_corpus.folder, tmp_path / tiny_corpus.folder.name))
    ids = (folder / "valid.ids").read_bytes()
    (folder / "valid.ids").write_bytes(b"\xff\xff" + ids[2:])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["valid.ids"]["sha256"] = hashlib.sha256((folder / "valid.ids").read_bytes()).hexdigest()
    manifest["sha256"] = manifest_checksum(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    again = prepare(source_corpus, WordTokenizerTrainer(min_frequency=1), tmp_path)
    assert f"{folder}: damaged token cache" in caplog.text
    assert (again.valid.ids == tiny_corpus.valid.ids).all()


def test_a_refused_configuration_is_wrong_usage(folder: Path) -> None:
    (folder / "config.yaml").write_text("choices: {}\nmodel: {_target_: os.system}\n")
    with pytest.raises(ConfigError, match=r"^model\._target_=os\.system: only classes of"):
        read_run_config(folder)
