"""Limits of the server, and the error that a request outside of them gets."""

from dataclasses import dataclass, fields

from torch_linguist.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes:
        body_bytes: largest request body.
        body_seconds: time to send the head of a request, and as much again for its body.
        tokens: prompt and continuation of one completion together.
        choices: completions per request: prompts times `n`.
        requests: requests at work or waiting.
        seconds: time for an answer.
        rows: completions that are computed side by side.
        cache_mib: memory for the states of prefixes.

    Raises:
        ConfigError: a limit is not positive.

    Example:
        >>> Limits(tokens=100).tokens
        100
    """

    body_bytes: int = 1 << 20
    body_seconds: float = 10.0
    tokens: int = 4096
    choices: int = 128
    requests: int = 64
    seconds: float = 120.0
    rows: int = 16
    cache_mib: int = 256

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{field.name}={value}: must be greater than 0 and finite")


class RequestError(Exception):
    """A request that is answered by an error.

    Args:
        status: HTTP status code.
        message: one line.
        parameter: field of the request that is wrong, if one is.
        code: OpenAI's code of the error, if it has one.
    """

    def __init__(self, status: int, message: str, parameter: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.parameter, self.code = status, parameter, code

    def as_dict(self) -> dict[str, dict[str, str | None]]:
        """Return the body of the answer, as OpenAI's clients read it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        message = " ".join(str(self).split())
        return {"error": {"message": message, "type": kind, "param": self.parameter, "code": self.code}}
