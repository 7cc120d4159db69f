"""Check of the structure of a `tokenizer.json`, for files from run folders of others.

Truncation, padding or a normalizer that drops text would shorten the text to predict, and so improve the score. A
foreign regular expression could run forever.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers

from torch_linguist.data.tokenizers.tokenizer import UNK
from torch_linguist.data.tokenizers.transforms import TRANSFORMS, set_transforms
from torch_linguist.data.tokenizers.word import WORD_PATTERN
from torch_linguist.errors import DataError

MODEL_OPTIONS: Mapping[str, Any] = {
    "dropout": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}
"""Options of the library's models in every tokenizer of this package."""

ADDED_TOKEN: Mapping[str, Any] = {"content": UNK, "single_word": False, "lstrip": False, "rstrip": False}


def check_structure(text: str) -> None:
    """Check that a tokenizer file has the structure that this package writes.

    Args:
        text: content of `tokenizer.json`, as written by `Tokenizer.to_json`.

    Raises:
        DataError: a part differs; the message names it.
    """
    description: dict[str, Any] = json.loads(text)
    for name in ("truncation", "padding", "post_processor"):
        if description.get(name) is not None:
            raise _foreign(name)
    if not all(ADDED_TOKEN.items() <= token.items() for token in description["added_tokens"]):
        raise _foreign("added_tokens")
    if not _is_chain(description["normalizer"]):
        raise _foreign("normalizer")
    model = description["model"]
    for name, value in MODEL_OPTIONS.items():
        if model.get(name, value) != value:
            raise _foreign(f"model.{name}")
    parts = (model["type"], description["pre_tokenizer"], description["decoder"])
    if parts not in _combinations():
        raise _foreign("pre_tokenizer or decoder")


def _is_chain(normalizer: Any) -> bool:
    """Return whether a normalizer is a chain of the package's transforms."""
    if normalizer is None or normalizer in _transforms():
        return True
    if not isinstance(normalizer, dict) or normalizer.get("type") != "Sequence":
        return False
    return all(_is_chain(part) for part in normalizer["normalizers"])


@functools.cache
def _transforms() -> tuple[Any, ...]:
    made = []
    for name in TRANSFORMS:
        backend = tokenizers.Tokenizer(models.WordLevel({UNK: 0}, unk_token=UNK))
        set_transforms(backend, [name])
        written = json.loads(backend.to_str())["normalizer"]
        # Inside a longer chain, the library flattens a transform with several steps.
        made += [written, *written.get("normalizers", ())]
    return tuple(made)


@functools.cache
def _combinations() -> tuple[tuple[str, Any, Any], ...]:
    """Return the package's combinations of model type, pre-tokenizer and decoder, as the library writes them."""

    def written(pre_tokenizer: Any, decoder: Any) -> tuple[Any, Any]:
        backend = tokenizers.Tokenizer(models.WordLevel({UNK: 0}, unk_token=UNK))
        if pre_tokenizer is not None:
            backend.pre_tokenizer = pre_tokenizer
        if decoder is not None:
            backend.decoder = decoder
        description = json.loads(backend.to_str())
        return description["pre_tokenizer"], description["decoder"]

    def byte_level(use_regex: bool) -> Any:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)

    split = pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True)
    return (
        ("WordLevel", *written(pre_tokenizers.WhitespaceSplit(), None)),
        ("WordLevel", *written(split, None)),
        ("BPE", *written(None, decoders.Fuse())),
        ("BPE", *written(byte_level(False), decoders.ByteLevel())),
        ("BPE", *written(byte_level(True), decoders.ByteLevel())),
        ("Unigram", *written(byte_level(True), decoders.ByteLevel())),
    )


def _foreign(part: str) -> DataError:
    return DataError(
        f"tokenizer.json: its {part} is not what torch-linguist writes, so its scores could not be compared; retrain "
        "the run, or use the folder that tl-train made"
    )
