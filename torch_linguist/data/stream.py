"""Token ids of a corpus, memory-mapped, with their lines and documents.

Shape legend: N tokens of a split, V vocabulary.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_linguist.data.corpus import MetadataValue
from torch_linguist.data.tokenizer import Tokenizer


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
        with self.metadata_file.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]


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
    """

    name: str
    tokenizer: Tokenizer
    streams: Mapping[str, TokenStream]
    fingerprint: str
    folder: Path
    counts: NDArray[np.int64] = field(repr=False)
    duplicates: Mapping[str, int] = field(default_factory=dict)

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


def open_streams(folder: Path, manifest: Mapping[str, Any]) -> TokenizedCorpus:
    """Opens what `encode_corpus` wrote; nothing but the sizes is read.

    Args:
        folder: of the token cache.
        manifest: its description.
    """
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    streams = {}
    for split, facts in manifest["splits"].items():
        streams[split] = TokenStream(
            split=split,
            ids=_map(folder / f"{split}.ids", manifest["dtype"]),
            eos_id=tokenizer.eos_id,
            words=facts["words"],
            bytes=facts["bytes"],
            oov=facts["oov"],
            line_offsets=_map(folder / f"{split}.lines", "int64"),
            document_offsets=_map(folder / f"{split}.documents", "int64"),
            metadata_file=folder / f"{split}.metadata.jsonl",
        )
    counts = np.fromfile(folder / "token_counts", np.int64)
    return TokenizedCorpus(
        manifest["name"], tokenizer, streams, manifest["fingerprint"], folder, counts, manifest["duplicates"]
    )


def _map(path: Path, dtype: str) -> NDArray[Any]:
    if path.stat().st_size == 0:  # An empty file cannot be mapped.
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")
