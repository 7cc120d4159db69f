"""Conversion of tokenizers to and from the format of `transformers`.

In this package `<eos>` stands for a newline. For `transformers`, the newline itself is therefore the end-of-sequence
token: it is encoded, decoded, and prepended to each text, as in training. Because it is a special token,
`decode(ids, skip_special_tokens=True)` omits newlines.
"""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, decoders

from torch_linguist.data.tokenizers.structure import check_structure
from torch_linguist.data.tokenizers.tokenizer import EOS, UNK, Tokenizer
from torch_linguist.errors import DataError

NEWLINE = "\n"

_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
"""Attributes of the added tokens, which match the unchanged text."""

UNUSED_SIGN = "ÿ"
"""Sign of the byte 0xFF, which UTF-8 never uses: its token becomes `<unk>` in a vocabulary without one."""

_SPACING = (
    (r" ?\n ?", "\n"),
    (r" (?=[,.;:!?%)\]}’”])", ""),
    (r"(?<=[(\[{‘“$]) ", ""),
    *((f" @{mark}@ ", mark) for mark in "-,."),
)


def to_huggingface(tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of `tokenizer.json` and `tokenizer_config.json` for `transformers`.

    The ids of a text are those of `Tokenizer.encode` after one `<eos>`. Word tokens are written with simple rules for
    the blanks around punctuation.

    Raises:
        DataError: the vocabulary has a newline beside `<eos>`.
    """
    description: dict[str, Any] = json.loads(tokenizer.to_json())
    if NEWLINE in tokenizer.tokens:
        raise DataError("tokenizer: has a newline beside <eos>, so the two could not be told apart; export with --jit")
    _rename(description, {EOS: NEWLINE})
    # If only white space separates words, <unk> inside a word is not a token.
    unknown = {"content": UNK, **_ADDED, "single_word": description["pre_tokenizer"] == {"type": "WhitespaceSplit"}}
    description["added_tokens"] = [
        {"id": tokenizer.eos_id, "content": NEWLINE, **_ADDED},
        {"id": tokenizer.unk_id, **unknown},
    ]
    description["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": NEWLINE, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"SpecialToken": {"id": NEWLINE, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": NEWLINE, "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 0}},
        ],
        "special_tokens": {NEWLINE: {"id": NEWLINE, "ids": [tokenizer.eos_id], "tokens": [NEWLINE]}},
    }
    if tokenizer.joins_words:
        description["decoder"] = _word_decoder()
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": NEWLINE,
        "eos_token": NEWLINE,
        "pad_token": NEWLINE,
        "unk_token": {"__type": "AddedToken", **unknown},
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,
    }
    return description, config


def from_huggingface(description: Mapping[str, Any], config: Mapping[str, Any], size: int, where: str) -> Tokenizer:
    """Return the tokenizer of a checkpoint: byte-level BPE as in GPT-2, or one that `to_huggingface` wrote.

    Args:
        description: content of `tokenizer.json`.
        config: content of `tokenizer_config.json`, for the names of the special tokens.
        size: number of rows of the model's embedding; surplus ids get names that no text contains.
        where: path of the checkpoint, for messages.

    Raises:
        DataError: the tokenizer is of another kind, or its size does not fit.
    """
    own: dict[str, Any] = json.loads(json.dumps(description))
    try:
        vocabulary = own["model"]["vocab"]
        if isinstance(vocabulary, dict):
            vocabulary |= {token["content"]: token["id"] for token in own["added_tokens"]}
        end, unknown = (_content(config.get(name)) for name in ("eos_token", "unk_token"))
        if end is None:
            raise DataError(f"{where}: tokenizer_config.json names no eos_token; add one")
        _rename(own, {end: EOS, UNUSED_SIGN if unknown in (None, end) else str(unknown): UNK})
        if isinstance(vocabulary, dict):
            vocabulary = own["model"]["vocab"]
            vocabulary |= {f"<unused{index}>": index for index in range(len(vocabulary), size)}
        if len(vocabulary) != size:
            raise DataError(f"{where}: the tokenizer has {len(vocabulary)} types, the model {size}; they do not fit")
        if own["model"]["type"] == "WordLevel":
            own |= {"added_tokens": [], "decoder": None}
        else:
            place = next(index for token, index in _items(vocabulary) if token == UNK)
            own["added_tokens"] = [{"id": place, "content": UNK, **_ADDED}]
        own |= {"post_processor": None, "truncation": None, "padding": None}
        tokenizer = Tokenizer.from_json(json.dumps(own))
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(f"{where}: tokenizer.json has no vocabulary with an end of text ({error!r})") from error
    try:
        check_structure(tokenizer.to_json())
    except DataError as error:
        raise DataError(
            f"{where}: its tokenizer is not byte-level BPE with the pre-tokenizer of GPT-2 ({error}); give another "
            "checkpoint"
        ) from error
    return tokenizer


def _rename(description: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename tokens of a vocabulary that no merge mentions.

    Raises:
        DataError: a token is missing, or its new name is taken.
    """
    model = description["model"]
    tokens = [token for token, _ in _items(model["vocab"])]
    for old, new in names.items():
        if old not in tokens or (new != old and new in tokens):
            raise DataError(f"tokenizer: cannot rename {old!r} to {new!r}; the one is missing, or the other is taken")
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): index for token, index in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]


def _items(vocabulary: Any) -> list[tuple[str, int]]:
    """Return the tokens of a vocabulary with their ids; unigram vocabularies are lists of tokens and scores."""
    if isinstance(vocabulary, dict):
        return list(vocabulary.items())
    return [(token, index) for index, (token, _) in enumerate(vocabulary)]


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _word_decoder() -> Any:
    """Return the decoder of word tokens: blanks between words, none before a comma or around a newline."""
    import tokenizers
    from tokenizers import models

    # The first word has a blank too: pipelines decode a continuation by itself and append it to the prompt.
    steps: list[Any] = [decoders.Replace(Regex("^"), " "), decoders.Fuse()]
    steps += [decoders.Replace(Regex(pattern), replacement) for pattern, replacement in _SPACING]
    backend = tokenizers.Tokenizer(models.WordLevel({UNK: 0}, unk_token=UNK))
    backend.decoder = decoders.Sequence(steps)
    return json.loads(backend.to_str())["decoder"]
