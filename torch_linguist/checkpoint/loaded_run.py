"""Loading a finished run from its folder: model, tokenizer and summary. Nothing in the folder is executed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_linguist.checkpoint.storage import TRUSTED, load_model
from torch_linguist.data import Corpus, TokenizedCorpus, Tokenizer, prepare, word_tokenizer
from torch_linguist.data.cache import check_tokenizer
from torch_linguist.data.identity import check_unchanged
from torch_linguist.errors import DataError, LinguistError
from torch_linguist.model import LanguageModel
from torch_linguist.model.ngram import read_arpa
from torch_linguist.runs.devices import scoring_device
from torch_linguist.runs.folders import is_arpa
from torch_linguist.runs.safe_reading import check_contained, read_json


@dataclass(frozen=True)
class LoadedRun:
    """Contents of a run folder.

    Attributes:
        folder: run folder, or path of the ARPA file.
        model: best model, in eval mode.
        tokenizer: tokenizer of the model.
        summary: content of `summary.json`; empty if the run has not ended.

    Example:
        >>> loaded = LoadedRun(Path("outputs/bigram"), model, corpus.tokenizer, summary={})
        >>> generate(loaded.model, loaded.tokenizer, "the cat", max_tokens=1, greedy=True)
        ['the cat sat']
    """

    folder: Path
    model: LanguageModel
    tokenizer: Tokenizer
    summary: dict[str, Any]

    @property
    def files_folder(self) -> Path:
        """Folder for files made from the run: the run folder, or that of the ARPA file."""
        return self.folder if self.folder.is_dir() else self.folder.parent

    def own_corpus(self, source: Corpus) -> TokenizedCorpus:
        """Return the run's own corpus in its tokens.

        Args:
            source: the corpus that the configuration of the run describes.

        Raises:
            DataError: its text or splits have changed since the run began: a split may hold what the model was
                trained on.
        """
        corpus = prepare(source, None, tokenizer=self.tokenizer)
        path = self.folder / "progress.json"
        content = read_json(path) if path.is_file() else {}
        if isinstance(content, dict):
            way_out = "restore the files, or name them with --data to score them as another corpus"
            check_unchanged(self.folder, content.get("corpus"), corpus, way_out)
        return corpus


def load_run(folder: Path | str, trusted: Sequence[str] = TRUSTED, device: str = "cpu") -> LoadedRun:
    """Load the best model of a run, or an ARPA file.

    Args:
        folder: run folder, or an ARPA file (`.arpa`, `.arpa.gz`), whose words white space separates in texts.
        trusted: packages whose model classes may be built, each ending in a dot.
        device: device for the model: `cpu`, `cuda`, `mps`, or `auto` (CUDA if there is one, else the CPU). Counted
            models stay on the CPU.

    Raises:
        LinguistError: the device is not available, the folder is not a run folder, the run has no checkpoint yet, a
            file is damaged, or a link leads out of the folder.

    Example:
        >>> try:
        ...     load_run("outputs/nothing")
        ... except LinguistError as error:
        ...     print(error)
        outputs/nothing: no such run folder
    """
    folder, chosen = Path(folder), scoring_device(device)
    if is_arpa(folder):
        ngrams, words = read_arpa(folder)
        return LoadedRun(folder, ngrams.eval(), word_tokenizer(words), {})
    if not folder.is_dir():
        raise LinguistError(f"{folder}: no such run folder")
    check_contained(folder)
    if not (folder / "tokenizer.json").is_file():
        raise LinguistError(
            f"{folder}: not a run folder (it has no tokenizer.json); give a folder that tl-train created"
        )
    model = load_model(folder / "checkpoints" / "best.pt", trusted)
    if not model.is_counted:
        model.to(chosen)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    try:
        check_tokenizer(tokenizer)
    except DataError as error:
        raise LinguistError(f"{folder}/{error}") from error
    if tokenizer.vocab_size != model.vocab_size:
        raise LinguistError(
            f"{folder}: tokenizer.json has {tokenizer.vocab_size} types, the checkpoint {model.vocab_size}; "
            "they belong to different runs"
        )
    path = folder / "summary.json"
    summary = read_json(path) if path.is_file() else {}
    if not isinstance(summary, dict):
        raise LinguistError(f"{path}: not a summary of a run as tl-train writes it")
    return LoadedRun(folder, model, tokenizer, summary)
