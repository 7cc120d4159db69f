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
    """One split as one long row of token ids; every line is closed by ``<eos>``.

    Attributes:
        split: its name.
        ids: token ids, uint16 or uint32 [N], usually memory-mapped.
        eos_id: id of ``<eos>``.
        words: words of the original text, separated by white space.
        bytes: UTF-8 bytes of the lines that were encoded, one for each newline included.
        oov: tokens that stand for a word outside the vocabulary.
        line_offsets: where each line begins, and N at the end, int64 [lines + 1].
        document_offsets: where each document begins, and N at the end, int64 [documents + 1].
        metadata_file: JSON lines with the metadata of each document, None where there is none.

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
            raise DataError(f"{self.metadata_file}: not readable; delete the token cache it lies in") from error
        if len(rows) != self.num_documents or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{self.metadata_file}: not one row a document; delete the token cache it lies in")
        return rows


@dataclass(frozen=True, eq=False)
class TokenizedCorpus:
    """A corpus as token streams, with its tokenizer.

    Attributes:
        name: of the corpus.
        tokenizer: what made the ids.
        streams: the stream of each split.
        fingerprint: of everything that went into the streams.
        folder: where they lie.
        counts: how often each token occurs in the training split, int64 [V].
        duplicates: documents of a held-out split whose text stands word for word in an earlier split, by split.
        checksums: SHA-256 of the ids of each split, by split.

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
        """The stream to train on."""
        return self.streams["train"]

    @property
    def valid(self) -> TokenStream:
        """The stream that choices are made by."""
        return self.streams["valid"]

    @property
    def test(self) -> TokenStream:
        """The stream that is looked at in the end."""
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
        """Documents of all splits."""
        return sum(stream.num_documents for stream in self.streams.values())

    @property
    def num_lines(self) -> int:
        """Lines of all splits."""
        return sum(stream.num_lines for stream in self.streams.values())

    def token_counts(self) -> NDArray[np.int64]:
        """How often each token occurs in the training split, int64 [V]."""
        return self.counts


DTYPES = {"uint16": 2, "uint32": 4}
"""Types of the ids, and their bytes."""

LOOKED_THROUGH = 2**26
"""Files of up to so many bytes are looked through for what cannot be; larger ones would take long at each start."""


def open_streams(folder: Path, manifest: Mapping[str, Any]) -> TokenizedCorpus:
    """Opens what `encode_corpus` wrote; little but the sizes is read.

    Args:
        folder: of the token cache.
        manifest: its description.

    Raises:
        DataError: the files do not fit each other or the description.
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
        raise DataError(f"{folder}: the token cache is not described as ours are ({type(error).__name__})") from error
    if not {"train", "valid", "test"} <= streams.keys():
        raise DataError(f"{folder}: the token cache lacks a split")
    if len(counts) != tokenizer.vocab_size or int(counts.sum()) != len(streams["train"]) or (counts < 0).any():
        raise DataError(f"{folder}: token_counts does not count the training split")
    return TokenizedCorpus(name, tokenizer, streams, fingerprint, folder, counts, duplicates, checksums)


def _open_split(folder: Path, split: str, tokenizer: Tokenizer, manifest: Mapping[str, Any]) -> TokenStream:
    facts, dtype = manifest["splits"][split], manifest["dtype"]
    names = [f"{split}.{kind}" for kind in ("ids", "lines", "documents", "metadata.jsonl")]
    # What the checksums do not cover is not read, wherever its name may lead.
    if dtype not in DTYPES or not all(name in manifest["files"] for name in names):
        raise DataError(f"{folder}: the token cache does not list the files of the split {split[:60]!r}")
    numbers = {name: facts[name] for name in ("tokens", "words", "bytes", "oov")}
    if not all(isinstance(number, int) and number >= 0 for number in numbers.values()):
        raise DataError(f"{folder}: the counts of the split {split} are no counts")
    if (folder / names[0]).stat().st_size != numbers["tokens"] * DTYPES[dtype]:
        raise DataError(f"{folder}: the ids of the split {split} are not as many as its tokens")
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
    """Offsets of streams put one after the other, each of which ends with its length."""
    begins = np.cumsum([0, *(int(part[-1]) for part in offsets)])
    shifted = [part[:-1] + begin for part, begin in zip(offsets, begins, strict=False)]
    return np.concatenate([*shifted, begins[-1:]]).astype(np.int64)


def _map(path: Path, dtype: str) -> NDArray[Any]:
    if path.stat().st_size == 0:  # An empty file cannot be mapped.
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")
