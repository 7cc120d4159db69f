"""Word vectors in the text formats of GloVe, word2vec and fastText."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torch_linguist.errors import DataError


def read_word_vectors(path: Path, tokens: Sequence[str], width: int) -> tuple[NDArray[np.float32], int]:
    """Read the vectors of some tokens.

    A line holds a word and its numbers, separated by spaces. The first line may instead hold the numbers of words and
    of features (word2vec, fastText `.vec`). A token without a line of its own takes the vector of its lowercase form.

    Args:
        path: text file in UTF-8.
        tokens: tokens V to look for.
        width: features D of each vector.

    Returns:
        The vectors, float32 [V, D], zeros for tokens that are not in the file; and the number of tokens found.

    Raises:
        DataError: the file cannot be read, a line is broken, or its vectors have another width.
    """
    wanted = {form for token in tokens for form in (token, token.lower())}
    found: dict[str, NDArray[np.float32]] = {}
    try:
        with path.expanduser().open(encoding="utf-8", errors="strict", newline="\n") as file:
            for number, line in enumerate(file, 1):
                parts = line.rstrip().split(" ")
                if number == 1 and len(parts) == 2:
                    _check_width(path, number, parts[1], width)
                    continue
                # Some words of published files contain spaces.
                word = " ".join(parts[:-width])
                if len(parts) <= width or (number == 1 and len(parts) != width + 1):
                    _check_width(path, number, str(len(parts) - 1), width)
                if word in wanted and word not in found:
                    found[word] = _numbers(path, number, parts[-width:])
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8; give vectors in a text format, not in a binary one") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    vectors, count = np.zeros((len(tokens), width), np.float32), 0
    for index, token in enumerate(tokens):
        vector = found.get(token, found.get(token.lower()))
        if vector is not None:
            vectors[index], count = vector, count + 1
    return vectors, count


def _check_width(path: Path, number: int, features: str, width: int) -> None:
    if features != str(width):
        raise DataError(
            f"{path}: line {number} has {features} numbers, the embedding {width}; set model.embedding_dim={features}, "
            "or give other vectors"
        )


def _numbers(path: Path, number: int, parts: Sequence[str]) -> NDArray[np.float32]:
    try:
        values = np.array(parts, np.float32)
    except ValueError as error:
        raise DataError(f"{path}: line {number} is not a word and {len(parts)} numbers") from error
    if not np.isfinite(values).all():
        raise DataError(f"{path}: line {number} holds a number that is not finite")
    return values
