"""The corpus that `--data` names, or a run's own, and runs on it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.config.checking.data_trust import check_data_trusted
from torch_linguist.config.composition import compose_config
from torch_linguist.config.instantiation import instantiate
from torch_linguist.config.overrides import quoted
from torch_linguist.config.stored_config import read_run_config
from torch_linguist.errors import ConfigError
from torch_linguist.runs.folders import run_labels

if TYPE_CHECKING:
    from torch_linguist.analysis import AnalyzedRun
    from torch_linguist.data import Corpus
    from torch_linguist.evaluation.run_evaluation import EvaluationSettings, ScoredModel


def find_corpus(spec: str | None, run: Path, *, trusted: bool = False) -> "Corpus":
    """Return the named corpus, or the run's own.

    Args:
        spec: `NAME`, `NAME:PATH` (`data=NAME data.path=PATH`), a path of texts, or None for the run's own corpus.
        run: the run folder, or an ARPA file.
        trusted: whether the user trusts the run folder to name files and addresses of its own.

    Raises:
        LinguistError: there is no such corpus, it cannot be read, or the run folder is not trusted.
    """
    if spec is None:
        if run.is_file():
            raise ConfigError(f"{run}: an ARPA file names no corpus; add --data NAME, or a path of texts")
        config, _ = read_run_config(run)
        if not trusted:
            check_data_trusted(config, run)
    else:
        name, path = _parsed(spec)
        config = compose_config([f"data={name}"] + ([f"data.path={quoted(path)}"] if path else [])).config
    corpus: Corpus = instantiate(config.data, "data")
    return corpus


def corpus_label(spec: str) -> str:
    """Return the name of a corpus in a table."""
    name, path = _parsed(spec)
    return f"text:{Path(path).name}" if name == "text" and path else name


def _parsed(spec: str) -> tuple[str, str]:
    name, colon, path = spec.partition(":")
    if not colon and ("/" in spec or Path(spec).exists()) and Path(spec).name:
        return "text", spec
    return name, path


def evaluate_folders(
    folders: Sequence[Path],
    settings: "EvaluationSettings",
    specs: Sequence[str | None] = (None,),
    *,
    trusted: bool = False,
    device: str = "cpu",
    note: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, float], None] = lambda what, fraction: None,
) -> "list[ScoredModel]":
    """Score the best models of runs on their own corpus or on others.

    Args:
        folders: run folders.
        settings: what to score.
        specs: corpora to score on; see `find_corpus`.
        trusted: see `find_corpus`.
        device: device of the models; see `load_run`.
        note: called with notes for the user; see `evaluate_runs`.
        progress: see `evaluate_runs`.

    Raises:
        LinguistError: a run or a corpus cannot be read, or runs to mix have different tokenizers.
    """
    from torch_linguist.checkpoint.loaded_run import load_run
    from torch_linguist.evaluation.run_evaluation import RunOnCorpus, check_same_tokenizer, evaluate_runs

    runs = [load_run(folder, device=device) for folder in folders]
    if settings.mix:
        check_same_tokenizer(runs)
    entries = []
    for spec in dict.fromkeys(specs):
        name = None if spec is None else corpus_label(spec)
        prepared = [
            RunOnCorpus.prepare(label, run, find_corpus(spec, run.folder, trusted=trusted), name, own=spec is None)
            for label, run in zip(run_labels(folders), runs, strict=True)
        ]
        if spec is not None and list(settings.splits) == ["test"]:
            streams = prepared[0].corpus.streams
            total = sum(stream.words for stream in streams.values())
            share = f"test is {streams['test'].words:,} of {total:,} words"
            note(f"{prepared[0].corpus_name}: {share}; --split all scores all of them")
        entries += evaluate_runs(prepared, settings, note, progress)
    return entries


def analyzed_runs(
    folders: Sequence[Path],
    split: str,
    spec: str | None = None,
    *,
    stride: int | None = None,
    trusted: bool = False,
    device: str = "cpu",
) -> "list[AnalyzedRun]":
    """Return runs on a split of the corpus of the first one, or of another corpus.

    See `find_corpus` for `spec` and `trusted`, and `load_run` for `device`.
    """
    from torch_linguist.analysis import AnalyzedRun, short_labels
    from torch_linguist.checkpoint.loaded_run import load_run
    from torch_linguist.data import prepare

    source = find_corpus(spec, folders[0], trusted=trusted)
    runs = [load_run(folder, device=device) for folder in folders]
    labels = short_labels(folders, [run.model for run in runs])
    # An ARPA file names no corpus.
    data = [read_run_config(folder)[0].data if folder.is_dir() else None for folder in folders]
    corpora = [
        run.own_corpus(source)
        if spec is None and own_data == data[0]
        else prepare(source, None, tokenizer=run.tokenizer)
        for run, own_data in zip(runs, data, strict=True)
    ]
    return [
        AnalyzedRun(label, run.model, run.tokenizer, corpus, split, stride, run.folder)
        for label, run, corpus in zip(labels, runs, corpora, strict=True)
    ]
