"""Encoding of a corpus into files of token ids, chunk by chunk, in bounded memory and on all cores."""

import hashlib
import json
import logging
import os
from array import array
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torch_linguist.data.corpora.corpus import Corpus, Document, cut_line, split_lines, text_hash
from torch_linguist.data.tokenizers.tokenizer import EncodedLines, Tokenizer
from torch_linguist.data.verification import check_expected, count_duplicates
from torch_linguist.errors import DataError

logger = logging.getLogger("torch_linguist.data")

CHUNK_PIECES = 8192
CHUNK_CHARACTERS = 2**20

WORKERS = 2
"""Number of encoding threads: while the library encodes on all cores, the other thread converts ids to arrays."""

IN_FLIGHT = 3
"""Largest number of pending chunks, which bounds the memory."""

UNTOUCHED = 10**18
"""Modification time of every complete file, in nanoseconds; a later change of the file changes it."""

_IS_SPACE = np.array([chr(code).isspace() for code in range(128)])


class HashedFile:
    """A file writer that computes the size and the checksum while it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = path.open("wb")

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def __enter__(self) -> "HashedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush the file to disk and close it, so that a file in its final place is complete."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.utime(self.path, ns=(UNTOUCHED, UNTOUCHED))

    def facts(self) -> dict[str, Any]:
        """Return size and checksum for the manifest."""
        return {"size": self.size, "sha256": self._hash.hexdigest()}


class _Chunk(NamedTuple):
    """Texts to encode in one call.

    Attributes:
        pieces: lines, or pieces of very long lines.
        begins: whether a piece begins a line.
        closed: whether a piece ends its line.
        documents: indices of the pieces that begin a document.
    """

    pieces: list[str]
    begins: list[bool]
    closed: list[bool]
    documents: list[int]


class _EncodedChunk(NamedTuple):
    chunk: _Chunk
    encoded: EncodedLines
    words: int
    bytes: int


def count_words(text: str) -> int:
    """Return the number of words separated by white space: `len(text.split())`, but faster for ASCII text."""
    if not text.isascii():
        return len(text.split())
    space = _IS_SPACE[np.frombuffer(text.encode("ascii"), np.uint8)]
    starts = int(np.count_nonzero(space[:-1] & ~space[1:]))
    return starts + (0 if not len(space) or space[0] else 1)


def _encode(tokenizer: Tokenizer, chunk: _Chunk) -> _EncodedChunk:
    encoded = tokenizer.encode_pieces(chunk.pieces, chunk.closed)
    text = "".join(
        [piece + "\n" if closed else piece for piece, closed in zip(chunk.pieces, chunk.closed, strict=True)]
    )
    return _EncodedChunk(chunk, encoded, count_words(text), len(text) if text.isascii() else len(text.encode()))


class SplitEncoder:
    """Encodes the documents of one split and writes their ids, offsets and metadata.

    Attributes:
        hashes: hash of each document's text.
        counts: frequency of each token, int64 [V].
    """

    def __init__(
        self, folder: Path, split: str, tokenizer: Tokenizer, blank_lines: str, dtype: str, pool: ThreadPoolExecutor
    ) -> None:
        self.tokenizer = tokenizer
        self.blank_lines = blank_lines
        self.dtype = dtype
        self.hashes = array("Q")
        self.tokens = self.words = self.bytes = self.oov = self.lines = self.empty = 0
        self.counts: NDArray[np.int64] = np.zeros(tokenizer.vocab_size, np.int64)
        self.files = {
            name: HashedFile(folder / f"{split}.{name}") for name in ("ids", "lines", "documents", "metadata.jsonl")
        }
        self._pool = pool
        self._waiting: deque[Future[_EncodedChunk]] = deque()
        self._chunk = _Chunk([], [], [], [])
        self._characters = 0

    def add(self, document: Document) -> None:
        """Encode a document."""
        lines = split_lines(document.text, self.blank_lines)
        if not lines:
            self.empty += 1
            return
        self.hashes.append(text_hash(document.text))
        self._chunk.documents.append(len(self._chunk.pieces))
        self.files["metadata.jsonl"].write((json.dumps(dict(document.metadata), ensure_ascii=False) + "\n").encode())
        for line in lines:
            pieces = cut_line(line)
            for index, piece in enumerate(pieces):
                if index and not pieces[index - 1][-1].isspace() and not piece[0].isspace():
                    self.words -= 1  # Both pieces count a word that was cut in two.
                self._add(piece, index == 0, index == len(pieces) - 1)

    def __enter__(self) -> "SplitEncoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for future in self._waiting:
            future.cancel()
        for file in self.files.values():
            file.close()

    def finish(self) -> dict[str, Any]:
        """Write the pending chunks.

        Returns:
            The counts of the split.
        """
        self._submit()
        while self._waiting:
            self._write(self._waiting.popleft().result())
        end = np.array([self.tokens], np.int64).tobytes()
        self.files["lines"].write(end)
        self.files["documents"].write(end)
        return {"tokens": self.tokens, "words": self.words, "bytes": self.bytes, "oov": self.oov}

    def _add(self, piece: str, begins: bool, closed: bool) -> None:
        chunk = self._chunk
        chunk.pieces.append(piece)
        chunk.begins.append(begins)
        chunk.closed.append(closed)
        self._characters += len(piece)
        if len(chunk.pieces) >= CHUNK_PIECES or self._characters >= CHUNK_CHARACTERS:
            self._submit()

    def _submit(self) -> None:
        if not self._chunk.pieces:
            return
        self._waiting.append(self._pool.submit(_encode, self.tokenizer, self._chunk))
        self._chunk = _Chunk([], [], [], [])
        self._characters = 0
        while len(self._waiting) > IN_FLIGHT:
            self._write(self._waiting.popleft().result())

    def _write(self, done: _EncodedChunk) -> None:
        chunk, encoded = done.chunk, done.encoded
        ends = self.tokens + np.cumsum(encoded.lengths)
        starts = np.concatenate([[self.tokens], ends[:-1]]).astype(np.int64)
        self.files["ids"].write(encoded.ids.astype(self.dtype).tobytes())
        self.files["lines"].write(starts[np.array(chunk.begins)].tobytes())
        self.files["documents"].write(starts[chunk.documents].tobytes())
        self.lines += sum(chunk.closed)
        self.words += done.words
        self.bytes += done.bytes
        self.counts += np.bincount(encoded.ids, minlength=len(self.counts))
        self.oov += encoded.oov
        self.tokens += len(encoded.ids)


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """Return the checksum of everything in a manifest but the checksum itself."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def encode_corpus(corpus: Corpus, tokenizer: Tokenizer, folder: Path, fingerprint: str) -> None:
    """Write the token streams of all splits, the tokenizer and finally the manifest to a folder.

    Raises:
        DataError: a split is empty, the source cannot be read, or a count differs from the published one.
    """
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    manifest: dict[str, Any] = {"name": corpus.name, "fingerprint": fingerprint, "dtype": dtype, "splits": {}}
    files: dict[str, Any] = {}
    hashes: dict[str, NDArray[np.uint64]] = {}
    with ThreadPoolExecutor(WORKERS, "tokenizing") as pool:
        for split in corpus.splits():
            logger.info("tokenizing %s, split %s", corpus.name, split)
            with SplitEncoder(folder, split, tokenizer, corpus.blank_lines, dtype, pool) as encoder:
                for document in corpus.documents(split):
                    encoder.add(document)
                manifest["splits"][split] = encoder.finish()
            if encoder.tokens == 0:
                raise DataError(f"{corpus.name}: the split {split} is empty; provide more text")
            if encoder.empty:
                logger.warning("%s: %d documents of %s are empty and left out", corpus.name, encoder.empty, split)
            check_expected(corpus, split, tokenizer, manifest["splits"][split], encoder.lines)
            hashes[split] = np.frombuffer(encoder.hashes, np.uint64)
            files.update({file.path.name: file.facts() for file in encoder.files.values()})
            if split == "train":
                with HashedFile(folder / "token_counts") as counts:
                    counts.write(encoder.counts.tobytes())
                files["token_counts"] = counts.facts()
    manifest["duplicates"] = count_duplicates(corpus, hashes)
    with HashedFile(folder / "tokenizer.json") as file:
        file.write(tokenizer.to_json().encode())
    files["tokenizer.json"] = file.facts()
    manifest["files"] = files
    manifest["sha256"] = manifest_checksum(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
