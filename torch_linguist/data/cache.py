"""The token cache: built once per corpus and tokenizer, found by its fingerprint, and replaced as a whole."""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from torch_linguist.data.corpora.corpus import Corpus, digest
from torch_linguist.data.encoding import UNTOUCHED, encode_corpus, manifest_checksum
from torch_linguist.data.stream import TokenizedCorpus, open_streams
from torch_linguist.data.tokenizers.structure import check_structure
from torch_linguist.data.tokenizers.tokenizer import Tokenizer
from torch_linguist.data.tokenizers.tokenizer_trainer import TokenizerTrainer
from torch_linguist.errors import DataError
from torch_linguist.runs.platform import replace_file

logger = logging.getLogger("torch_linguist.data")

FORMAT_VERSION = 3
"""Version of the cache format, increased with every incompatible change."""

CHECKSUM_LIMIT = 64 * 2**20
"""Size in bytes up to which files are verified by checksum at each start. Larger files are verified by size, and by
checksum if their modification time has changed or on request."""


def default_cache_dir() -> Path:
    """Return `$TORCH_LINGUIST_CACHE`, else `$XDG_CACHE_HOME/torch_linguist`, else `~/.cache/torch_linguist`.

    Example:
        >>> isinstance(default_cache_dir(), Path)
        True
    """
    own = os.environ.get("TORCH_LINGUIST_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        if own:
            return Path(own).expanduser()
        return (Path(shared) if shared else Path.home() / ".cache") / "torch_linguist"
    except RuntimeError as error:
        raise DataError(
            "token cache: there is no home folder (no HOME and no passwd entry); set TORCH_LINGUIST_CACHE to a folder"
        ) from error


def prepare(
    corpus: Corpus,
    tokenizer_trainer: TokenizerTrainer | None,
    cache_dir: Path | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    verify: bool = False,
) -> TokenizedCorpus:
    """Return the token streams of a corpus from the cache; tokenize the corpus first if the cache lacks them.

    If several processes call this at once for the same streams, one tokenizes and the others wait.

    Args:
        corpus: corpus to tokenize.
        tokenizer_trainer: trainer of the tokenizer; ignored if `tokenizer` is given.
        cache_dir: folder of the token caches; None for `default_cache_dir()`.
        tokenizer: existing tokenizer, such as that of a run that scores another corpus.
        verify: whether to verify the checksums of files of any size.

    Raises:
        DataError: the source cannot be read, a split is empty, or the cache cannot be written.

    Example:
        >>> tokenized = prepare(texts, WordTokenizerTrainer(min_frequency=1))
        >>> tokenized.train.ids.dtype, len(tokenized.train) == int(tokenized.token_counts().sum())
        (dtype('uint16'), True)
    """
    for note in corpus.notes():
        logger.warning("%s: %s", corpus.name, note)
    if tokenizer is not None:
        source = digest("tokenizer", tokenizer.to_json())
    elif tokenizer_trainer is not None:
        source = tokenizer_trainer.fingerprint()
    else:
        raise DataError("prepare: needs a tokenizer_trainer or a tokenizer")
    fingerprint = digest(FORMAT_VERSION, corpus.name, corpus.fingerprint(), corpus.blank_lines, source)
    root = default_cache_dir() if cache_dir is None else Path(cache_dir)
    folder = root / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', corpus.name)}-{fingerprint[:16]}"
    found = _open(folder, fingerprint, verify)
    if found is not None:
        return found
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{folder.name}.lock"):
            found = _open(folder, fingerprint, verify)
            if found is None:
                _build(corpus, tokenizer_trainer, tokenizer, folder, fingerprint)
                found = _open(folder, fingerprint)
    except OSError as error:
        raise DataError(
            f"{root}: the token cache cannot be written ({error.strerror or error}); "
            "free some space, or set TORCH_LINGUIST_CACHE to another folder"
        ) from error
    if found is None:
        raise DataError(f"{folder}: the token cache was damaged as it was written; check the disk")
    return found


def check_tokenizer(tokenizer: Tokenizer, cache_dir: Path | None = None) -> None:
    """Check that a tokenizer from a run folder is one of this package's kinds, or was trained on this machine.

    Args:
        tokenizer: the tokenizer.
        cache_dir: folder of the token caches; None for `default_cache_dir()`.

    Raises:
        DataError: it has a foreign structure, and no token cache of this machine was made with it.
    """
    try:
        check_structure(tokenizer.to_json())
    except DataError:
        root = default_cache_dir() if cache_dir is None else cache_dir
        content = tokenizer.to_json().encode()
        if not any(path.read_bytes() == content for path in root.glob("*/tokenizer.json")):
            raise


def _build(
    corpus: Corpus,
    tokenizer_trainer: TokenizerTrainer | None,
    tokenizer: Tokenizer | None,
    folder: Path,
    fingerprint: str,
) -> None:
    """Write the streams to a temporary folder and move it into place; the caller holds the lock."""
    for left_over in folder.parent.glob(f"{folder.name}.tmp-*"):  # Left by a killed build.
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        if tokenizer is None:
            if tokenizer_trainer is None:
                raise AssertionError("checked by prepare")
            tokenizer = tokenizer_trainer.train(corpus)
        encode_corpus(corpus, tokenizer, temporary, fingerprint)
        if folder.exists():
            shutil.rmtree(folder)
        replace_file(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _open(folder: Path, fingerprint: str, verify: bool = False) -> TokenizedCorpus | None:
    """Return the streams in a folder; None if there are none or, with a warning, if they are damaged."""
    if not folder.is_dir():
        return None
    damage = _damage(folder, fingerprint, verify)
    if damage is None:
        try:
            return open_streams(folder, _manifest(folder))
        except DataError as error:  # The checksums fit, but the content is invalid.
            damage = str(error)
    logger.warning("%s: damaged token cache (%s); rebuilding it", folder, damage)
    return None


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def _damage(folder: Path, fingerprint: str, verify: bool) -> str | None:
    """Return a description of the damage of a cache folder, or None."""
    try:
        manifest = _manifest(folder)
        if manifest["fingerprint"] != fingerprint:
            return "manifest.json belongs to another corpus"
        if manifest["sha256"] != manifest_checksum(manifest):
            return "manifest.json has a wrong checksum"
        for name, facts in manifest["files"].items():
            path = folder / name
            if Path(name).name != name or path.is_symlink():
                return f"{name[:60]!r} is not a file of the cache"
            status = path.stat()
            if status.st_size != facts["size"]:
                return f"{name} has {status.st_size} bytes instead of {facts['size']}"
            if verify or facts["size"] <= CHECKSUM_LIMIT or status.st_mtime_ns != UNTOUCHED:
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                        return f"{name} has a wrong checksum"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError:
        # No file handles, no permission or a failing disk: a rebuild would not help.
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "manifest.json cannot be read"
    return None
