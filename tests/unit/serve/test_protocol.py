"""Requests as JSON: what is accepted, and what a refusal says."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_linguist.data import TokenizedCorpus
from torch_linguist.model import LanguageModel
from torch_linguist.serve import Limits, ServedModel
from torch_linguist.serve.limits import RequestError
from torch_linguist.serve.protocol import CompletionRequest, parse_completion, parse_json

ModelBuilder = Callable[..., LanguageModel]
Parse = Callable[..., CompletionRequest]
LIMITS = Limits(tokens=50, choices=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def parse(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> Parse:
    model = ServedModel("m", build_model("lstm", tiny_corpus.tokenizer.vocab_size), tiny_corpus.tokenizer)
    return lambda **body: parse_completion(body, {"m": model}, LIMITS)


def test_defaults_are_those_of_the_protocol(parse: Parse) -> None:
    request = parse(prompt="the king")
    assert (request.max_tokens, request.n, request.stop, request.seed, request.logprobs) == (16, 1, [], None, None)
    assert [request.echo, request.stream, request.sampling.greedy] == [False] * 3
    assert request.sampling.temperature == request.sampling.top_p == 1
    neutral: dict[str, Any] = {
        "best_of": 1,
        "suffix": None,
        "logit_bias": {},
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
    }
    assert parse(prompt="a", user="me", model="m", **neutral).max_tokens == 16


def test_a_prompt_is_a_text_or_token_ids_or_a_list(parse: Parse, tiny_corpus: TokenizedCorpus) -> None:
    tokenizer = tiny_corpus.tokenizer
    ids = tokenizer.encode("the king\nsees")
    text, given = parse(prompt="the king\nsees").prompts[0], parse(prompt=ids).prompts[0]
    assert text.ids == given.ids == [tokenizer.eos_id, *ids]
    assert text.offsets == [0, 4, 8, 9]
    assert [text.text, given.text] == ["the king\nsees"] * 2
    assert parse(prompt=[tokenizer.eos_id, *ids]).prompts[0].ids == text.ids
    assert len(parse(prompt=["the", "a"]).prompts) == len(parse(prompt=[ids, ids[:1]]).prompts) == 2
    assert parse(temperature=0).sampling.greedy


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "other"}, 404, "model='other': not served; choose m"),
        ({"model": 1}, 400, "model: must be a text"),
        ({"prompt": 1}, 400, "prompt: must be a text, token ids"),
        ({"prompt": []}, 400, "prompt: must be a text, token ids"),
        ({"prompt": [["a"]]}, 400, "prompt: token ids must be integers"),
        ({"prompt": [10**30]}, 400, "prompt: token ids must be integers"),
        ({"prompt": [1, True]}, 400, "prompt: token ids must be integers"),
        ({"prompt": "\ud800"}, 400, "prompt: holds half of a surrogate pair"),
        ({"prompt": ["a"] * 5}, 400, "prompt: at most 4 prompts"),
        ({"prompt": "a " * 40}, 400, "prompt of 41 tokens and max_tokens=16: at most 50 together"),
        ({"max_tokens": 51}, 400, "max_tokens: must be an integer from 0 to 50"),
        ({"max_tokens": 1.0}, 400, "max_tokens: must be an integer from 0 to 50"),
        ({"n": 0}, 400, "n: must be an integer from 1 to 4"),
        ({"prompt": ["a", "b"], "n": 3}, 400, "2 prompts and n=3: at most 4 completions"),
        ({"temperature": 10**400}, 400, "temperature: must be a number from 0 to 2"),
        ({"temperature": True}, 400, "temperature: must be a number from 0 to 2"),
        ({"top_p": -0.1}, 400, "top_p: must be a number from 0 to 1"),
        ({"seed": 2**63}, 400, "seed: must be an integer"),
        ({"logprobs": 21}, 400, "logprobs: must be an integer from 0 to 20"),
        ({"echo": 1}, 400, "echo: must be true or false"),
        ({"stop": ["a", ""]}, 400, "stop: each must be a text"),
        ({"stop": {"a": 1}}, 400, "stop: must be a text or a list"),
        ({"suffix": "x"}, 400, "suffix: not supported"),
        ({"presence_penalty": False}, 400, "presence_penalty: not supported"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options: must be"),
        ({"promt": "a"}, 400, "'promt': unknown field"),
    ],
)
def test_a_refusal_names_the_field(parse: Parse, body: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(**body)
    assert caught.value.status == status
    assert message in str(caught.value)
    assert "\n" not in caught.value.as_dict()["error"]["message"]  # type: ignore[operator]


@given(
    name=st.sampled_from(["prompt", "max_tokens", "temperature", "n", "stop", "seed", "logprobs", "stream"]),
    value=VALUES,
)
def test_any_value_is_accepted_or_refused(parse: Parse, name: str, value: Any) -> None:
    with contextlib.suppress(RequestError):
        assert parse(**{name: value}).prompts


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff{}", b'{"a": NaN}', b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'"text"', b"\x00"],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError, match="body: ") as caught:
        parse_json(body)
    assert caught.value.status == 400


def test_a_json_object_is_read() -> None:
    assert parse_json(json.dumps({"a": ["é", 1]}).encode()) == {"a": ["é", 1]}
