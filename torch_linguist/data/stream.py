"""Token ids of a corpus, memory-mapped, with their lines and documents.

Shape legend: N tokens of a split, V vocabulary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_linguist.data.corpora.corpus import MetadataValue
from torch_linguist.data.tokenizers.tokenizer import Tokenizer
from torch_linguist.errors import DataError, is_exhausted


@dataclass(frozen=True, eq=False)
class TokenStream:
    """One split as one long sequence of token ids; ``<eos>`` ends every line.

    Attributes:
        split: name of the split.
        ids: token ids, uint16 or uint32 [N]; memory-mapped if read from the token cache.
        eos_id: id of ``<eos>``.
        words: number of words in the original text, separated by white space.
        bytes: number of UTF-8 bytes of the encoded lines, newlines included.
        oov: number of tokens that stand for a word outside the vocabulary.
        line_offsets: position of the first token of each line, then N, int64 [lines + 1].
        document_offsets: position of the first token of each document, then N, int64 [documents + 1].
        metadata_file: JSON lines file with the metadata of each document; None for no metadata.

    Example:
        >>> stream = corpus.test
        >>> stream.num_lines, int(stream.ids[-1]) == stream.eos_id
        (2, True)
    """

    split: str
    ids: NDArray[np.unsignedinteger]
    eos_id: int
    words: int
    bytes: int
    oov: int
    line_offsets: NDArray[np.int64]
    document_offsets: NDArray[np.int64]
    metadata_file: Path | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def oov_rate(self) -> float:
        """Share of the tokens that stand for a word outside the vocabulary."""
        return self.oov / len(self) if len(self) else 0.0

    @property
    def num_lines(self) -> int:
        """Number of lines."""
        return len(self.line_offsets) - 1

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.document_offsets) - 1

    @cached_property
    def metadata(self) -> list[dict[str, MetadataValue]]:
        """Metadata of each document, read on first use."""
        if self.metadata_file is None:
            return [{} for _ in range(self.num_documents)]
        try:
            with self.metadata_file.open(encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
        except (OSError, ValueError, RecursionError) as error:
            if is_exhausted(error):
                raise
            raise DataError(f"{self.metadata_file}: cannot be read; delete its folder") from error
        if len(rows) != self.num_documents or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{self.metadata_file}: does not have one row per document; delete its folder")
        return rows


@dataclass(frozen=True, eq=False)
class TokenizedCorpus:
    """A corpus as token streams, with its tokenizer.

    Attributes:
        name: name of the corpus.
        tokenizer: tokenizer that produced the ids.
        streams: token stream of each split.
        fingerprint: digest of the text, the splits and the tokenizer.
        folder: token cache that holds the files.
        counts: frequency of each token in the training split, int64 [V].
        duplicates: number of documents per held-out split whose exact text also occurs in an earlier split.
        checksums: SHA-256 of the ids of each split.

    Example:
        >>> list(corpus.streams), corpus.tokenizer.vocab_size == len(corpus.token_counts())
        (['train', 'valid', 'test'], True)
    """

    name: str
    tokenizer: Tokenizer
    streams: Mapping[str, TokenStream]
    fingerprint: str
    folder: Path
    counts: NDArray[np.int64] = field(repr=False)
    duplicates: Mapping[str, int] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)

    @property
    def train(self) -> TokenStream:
        """Training split."""
        return self.streams["train"]

    @property
    def valid(self) -> TokenStream:
        """Validation split, for choosing models and hyperparameters."""
        return self.streams["valid"]

    @property
    def test(self) -> TokenStream:
        """Test split, for the final score."""
        return self.streams["test"]

    def stream(self, split: str) -> TokenStream:
        """Return the stream of a split; `all` is every split in order, as one stream without metadata."""
        if split != "all":
            return self.streams[split]
        parts = list(self.streams.values())
        return TokenStream(
            split=split,
            ids=np.concatenate([part.ids for part in parts]),
            eos_id=parts[0].eos_id,
            words=sum(part.words for part in parts),
            bytes=sum(part.bytes for part in parts),
            oov=sum(part.oov for part in parts),
            line_offsets=_joined([part.line_offsets for part in parts]),
            document_offsets=_joined([part.document_offsets for part in parts]),
        )

    @property
    def num_documents(self) -> int:
        """Number of documents in all splits."""
        return sum(stream.num_documents for stream in self.streams.values())

    @property
    def num_lines(self) -> int:
        """Number of lines in all splits."""
        return sum(stream.num_lines for stream in self.streams.values())

    def token_counts(self) -> NDArray[np.int64]:
        """Return the frequency of each token in the training split, int64 [V]."""
        return self.counts


DTYPES = {"uint16": 2, "uint32": 4}
"""Types of the ids with their sizes in bytes."""

LOOKED_THROUGH = 2**26
"""Size in bytes up to which the contents of files are checked; larger files would delay each start."""


def open_streams(folder: Path, manifest: Mapping[str, Any]) -> TokenizedCorpus:
    """Open the files that `encode_corpus` wrote, memory-mapped.

    Args:
        folder: folder of the token cache.
        manifest: content of its `manifest.json`.

    Raises:
        DataError: the files contradict each other or the manifest.
    """
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    try:
        streams = {split: _open_split(folder, split, tokenizer, manifest) for split in manifest["splits"]}
        counts = np.fromfile(folder / "token_counts", np.int64)
        duplicates = {str(split): int(count) for split, count in manifest["duplicates"].items()}
        checksums = {str(split): str(manifest["files"][f"{split}.ids"]["sha256"]) for split in streams}
        name, fingerprint = str(manifest["name"]), str(manifest["fingerprint"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
        if isinstance(error, DataError) or is_exhausted(error):
            raise
        raise DataError(f"{folder}: manifest.json has an invalid entry ({type(error).__name__})") from error
    if not {"train", "valid", "test"} <= streams.keys():
        raise DataError(f"{folder}: the token cache lacks a split")
    if len(counts) != tokenizer.vocab_size or int(counts.sum()) != len(streams["train"]) or (counts < 0).any():
        raise DataError(f"{folder}: token_counts does not count the training split")
    return TokenizedCorpus(name, tokenizer, streams, fingerprint, folder, counts, duplicates, checksums)


def _open_split(folder: Path, split: str, tokenizer: Tokenizer, manifest: Mapping[str, Any]) -> TokenStream:
    facts, dtype = manifest["splits"][split], manifest["dtype"]
    names = [f"{split}.{kind}" for kind in ("ids", "lines", "documents", "metadata.jsonl")]
    # Only files that the checksums cover are read; another name could lead outside the folder.
    if dtype not in DTYPES or not all(name in manifest["files"] for name in names):
        raise DataError(f"{folder}: the token cache does not list the files of the split {split[:60]!r}")
    numbers = {name: facts[name] for name in ("tokens", "words", "bytes", "oov")}
    if not all(isinstance(number, int) and number >= 0 for number in numbers.values()):
        raise DataError(f"{folder}: the split {split} has invalid counts")
    if (folder / names[0]).stat().st_size != numbers["tokens"] * DTYPES[dtype]:
        raise DataError(f"{folder}: the number of ids of the split {split} differs from its number of tokens")
    ids = _map(folder / names[0], dtype)
    if 0 < ids.nbytes <= LOOKED_THROUGH and int(ids.max()) >= tokenizer.vocab_size:
        raise DataError(f"{folder}: the split {split} has ids past the vocabulary")
    offsets = [_map(folder / name, "int64") for name in names[1:3]]
    for offset in offsets:
        ends = len(offset) and offset[-1] == len(ids) and offset[0] == 0
        if not ends or (offset.nbytes <= LOOKED_THROUGH and (offset[1:] < offset[:-1]).any()):
            raise DataError(f"{folder}: the lines or documents of the split {split} do not end with its tokens")
    return TokenStream(
        split=split,
        ids=ids,
        eos_id=tokenizer.eos_id,
        words=numbers["words"],
        bytes=numbers["bytes"],
        oov=numbers["oov"],
        line_offsets=offsets[0],
        document_offsets=offsets[1],
        metadata_file=folder / names[3],
    )


def _joined(offsets: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the offsets of concatenated streams; each input ends with the length of its stream."""
    begins = np.cumsum([0, *(int(part[-1]) for part in offsets)])
    shifted = [part[:-1] + begin for part, begin in zip(offsets, begins, strict=False)]
    return np.concatenate([*shifted, begins[-1:]]).astype(np.int64)


def _map(path: Path, dtype: str) -> NDArray[Any]:
    if path.stat().st_size == 0:  # An empty file cannot be mapped.
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")
