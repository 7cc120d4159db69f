"""OpenAI's completions protocol: a request as typed values, an answer as plain types."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_linguist.data import Tokenizer
from torch_linguist.generation import Sampling
from torch_linguist.serve.limits import Limits, RequestError
from torch_linguist.serve.served_model import ServedModel
from torch_linguist.serve.text_completion import Piece, Prompt, TokenScore

MOST_LOGPROBS = 20
MOST_STOPS = 16
LONGEST_STOP = 1000
LEAST_LOGPROB = -9999.0
"""Stands for the logarithm of zero, which JSON cannot hold."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (None,),
    "suffix": (None, ""),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
}
"""Fields that the server knows but does not implement, with the values that ask for nothing."""

IGNORED = ("user",)
FIELDS = ("model", "prompt", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "logprobs", "echo", "stream")


@dataclass(frozen=True, eq=False)
class CompletionRequest:
    """A checked request.

    Attributes:
        model: model that continues the prompts.
        prompts: one or more prompts.
        sampling: how each token is chosen.
        max_tokens: largest number of new tokens of a completion.
        n: completions per prompt.
        stop: texts that end a completion.
        seed: seed of the first completion of each prompt; the next ones count up. None for fresh seeds.
        logprobs: number of most probable tokens to report for each token; None for no log-probabilities.
        echo: whether a completion begins with its prompt.
        stream: whether pieces are sent as they come.
        include_usage: whether a stream ends with the number of tokens.
    """

    model: ServedModel
    prompts: list[Prompt]
    sampling: Sampling
    max_tokens: int
    n: int
    stop: list[str]
    seed: int | None
    logprobs: int | None
    echo: bool
    stream: bool
    include_usage: bool


def parse_json(body: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        RequestError: the body is not UTF-8, not JSON, or not an object.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise RequestError(400, f"body: not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"body: not JSON ({str(error)[:100] or 'nested too deeply'})") from None
    if not isinstance(value, dict):
        raise RequestError(400, "body: must be a JSON object")
    return value


def parse_completion(body: Mapping[str, Any], models: Mapping[str, ServedModel], limits: Limits) -> CompletionRequest:
    """Check a request.

    Args:
        body: request as JSON.
        models: models by name.
        limits: limits of the server.

    Raises:
        RequestError: a field is unknown, of the wrong type or out of range.
    """
    for name in body:
        if name not in (*FIELDS, *IGNORED, *NEUTRAL, "stream_options"):
            raise RequestError(400, f"{name[:60]!r}: unknown field", name[:60])
    for name, values in NEUTRAL.items():
        value = body.get(name)
        is_neutral = value in values or (name == "best_of" and value == body.get("n", 1))
        # True equals 1, and False 0.
        if isinstance(value, bool) or not is_neutral:
            raise RequestError(400, f"{name}: not supported; leave it out", name)
    model = find_model(body.get("model"), models)
    max_tokens = _integer(body, "max_tokens", 16, 0, limits.tokens)
    prompts = _prompts(body.get("prompt", ""), model.tokenizer, limits)
    longest = max(len(prompt.ids) for prompt in prompts)
    if longest + max_tokens > limits.tokens:
        raise RequestError(
            400,
            f"prompt of {longest} tokens and max_tokens={max_tokens}: at most {limits.tokens} together",
            "prompt",
            "context_length_exceeded",
        )
    n = _integer(body, "n", 1, 1, limits.choices)
    if n * len(prompts) > limits.choices:
        raise RequestError(400, f"{len(prompts)} prompts and n={n}: at most {limits.choices} completions", "n")
    logprobs = body.get("logprobs")
    stream = _boolean(body, "stream")
    return CompletionRequest(
        model=model,
        prompts=prompts,
        sampling=_sampling(body),
        max_tokens=max_tokens,
        n=n,
        stop=_stops(body.get("stop")),
        seed=None if body.get("seed") is None else _integer(body, "seed", 0, -(2**63), 2**63 - 1),
        logprobs=None if logprobs is None else _integer(body, "logprobs", 0, 0, MOST_LOGPROBS),
        echo=_boolean(body, "echo"),
        stream=stream,
        include_usage=_include_usage(body.get("stream_options"), stream),
    )


def find_model(name: Any, models: Mapping[str, ServedModel]) -> ServedModel:
    """Return the model of a name; the first one for None.

    Raises:
        RequestError: there is no such model.
    """
    if name is None:
        return next(iter(models.values()))
    if not isinstance(name, str):
        raise RequestError(400, "model: must be a text", "model")
    if name not in models:
        known = ", ".join(models)
        raise RequestError(404, f"model={name[:60]!r}: not served; choose {known}", "model", "model_not_found")
    return models[name]


def token_list(value: Any, vocab_size: int, field: str) -> list[int]:
    """Return token ids.

    Raises:
        RequestError: the value is no list of ids of the vocabulary.
    """
    if not isinstance(value, list) or not all(type(token) is int and 0 <= token < vocab_size for token in value):
        raise RequestError(400, f"{field}: token ids must be integers from 0 to {vocab_size - 1}", field)
    return value


def choice_as_dict(
    index: int, text: str, scores: Sequence[TokenScore] | None, reason: str | None, names: Sequence[str]
) -> dict[str, Any]:
    """Return a completion, or a piece of one, as the protocol has it.

    Args:
        index: number of the completion in the request.
        text: its text.
        scores: its tokens; None without log-probabilities.
        reason: what ended it; None if it goes on.
        names: name of each token of the vocabulary.
    """
    logprobs = None
    if scores is not None:
        logprobs = {
            "tokens": [names[score.token] for score in scores],
            "token_logprobs": [None if score.log_prob is None else _finite(score.log_prob) for score in scores],
            "top_logprobs": [
                None if score.log_prob is None else {names[token]: _finite(value) for token, value in score.best}
                for score in scores
            ],
            "text_offset": [score.offset for score in scores],
        }
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def usage(prompts: Sequence[Prompt], pieces: Sequence[Piece]) -> dict[str, int]:
    """Return how many tokens a request took."""
    read, written = sum(prompt.size for prompt in prompts), sum(piece.generated for piece in pieces)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _finite(value: float) -> float:
    return max(value, LEAST_LOGPROB)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _integer(body: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or not least <= value <= most:
        raise RequestError(400, f"{name}: must be an integer from {least} to {most}", name)
    return value


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestError(400, f"{name}: must be true or false", name)
    return bool(value)


def _real(body: Mapping[str, Any], name: str, default: float, most: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise RequestError(400, f"{name}: must be a number from 0 to {most:g}", name)
    return float(value)


def _sampling(body: Mapping[str, Any]) -> Sampling:
    temperature, top_p = _real(body, "temperature", 1.0, 2.0), _real(body, "top_p", 1.0, 1.0)
    # As in OpenAI's protocol, zero stands for the most probable token.
    greedy = temperature == 0 or top_p == 0
    return Sampling(temperature=temperature or 1.0, top_p=top_p or 1.0, greedy=greedy)


def _stops(value: Any) -> list[str]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise RequestError(400, f"stop: must be a text or a list of at most {MOST_STOPS}", "stop")
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= LONGEST_STOP:
            raise RequestError(400, f"stop: each must be a text of 1 to {LONGEST_STOP} characters", "stop")
    return stops


def _include_usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not isinstance(value, dict) or not stream or value.keys() - {"include_usage"}:
        raise RequestError(400, 'stream_options: must be {"include_usage": true}, with stream', "stream_options")
    return _boolean(value, "include_usage")


def _prompts(value: Any, tokenizer: Tokenizer, limits: Limits) -> list[Prompt]:
    if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
        value = [value]
    if not isinstance(value, list) or not value:
        raise RequestError(400, "prompt: must be a text, token ids, or a list of either", "prompt")
    if len(value) > limits.choices:
        raise RequestError(400, f"prompt: at most {limits.choices} prompts", "prompt")
    return [_prompt(one, tokenizer) for one in value]


def _prompt(value: Any, tokenizer: Tokenizer) -> Prompt:
    if not isinstance(value, str):
        return Prompt.of_ids(token_list(value, tokenizer.vocab_size, "prompt"), tokenizer)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(400, "prompt: holds half of a surrogate pair", "prompt") from None
    return Prompt.of_text(value, tokenizer)
