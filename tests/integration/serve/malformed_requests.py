"""Malformed requests, the same for a seed: wrong types, huge numbers, broken UTF-8, cut bodies, slow senders."""

import json
import random
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

FIELDS = ["model", "prompt", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "logprobs", "echo", "stream"]


class Malformed(NamedTuple):
    """A request that deserves a 4xx.

    Attributes:
        kind: what is wrong.
        head: bytes that are sent at once.
        rest: bytes that follow one by one.
        pause: seconds between them.
        closes: whether the client closes its side afterwards.
    """

    kind: str
    head: bytes
    rest: bytes = b""
    pause: float = 0.0
    closes: bool = False


def malformed(count: int, seed: int) -> Iterator[Malformed]:
    """Requests for a server with a time limit of one second for a request and the default limits otherwise."""
    source = random.Random(seed)
    kinds = [
        _wrong_type, _huge_number, _broken_utf8, _cut_body, _cut_json, _noise, _unknown_path,
        _wrong_media_type, _large_body, _bad_length, _odd_prompt,
    ]  # fmt: skip
    for index in range(count):
        # Slow ones take a second each.
        yield _slow(source) if index % 50 == 7 else source.choice(kinds)(source)


def exchange(port: int, one: Malformed) -> bytes:
    """Sends a request and returns all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(one.head)
            for byte in one.rest:
                time.sleep(one.pause)
                connection.sendall(bytes([byte]))
            if one.closes:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The answer may come before the end of the request.
        found = bytearray()
        while part := connection.recv(1 << 16):
            found += part
            head, _, body = bytes(found).partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if lengths and len(body) >= int(lengths[0].partition(b":")[2]):
                break
    return bytes(found)


def post(body: bytes, path: str = "/v1/completions", media: str = "application/json", length: str = "") -> bytes:
    """A POST request."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media}\r\ncontent-length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


def _value(source: random.Random, depth: int = 0) -> Any:
    simple: list[Any] = [None, True, "x", -1, 10**25, 1e300, -0.5, "\ud800", "\x00", {}, []]
    if depth < 2 and source.random() < 0.3:
        return [_value(source, depth + 1) for _ in range(source.randrange(4))]
    return source.choice(simple)


def _wrong_type(source: random.Random) -> Malformed:
    # Objects are no value of any field.
    body = {source.choice(FIELDS): {"a": _value(source)}} | {"max_tokens": _value(source), "surprise": _value(source)}
    return Malformed("wrong type", post(json.dumps(body).encode()))


def _huge_number(source: random.Random) -> Malformed:
    name = source.choice(["max_tokens", "n", "seed", "logprobs", "temperature", "top_p"])
    number = source.choice(["9" * 30, "9" * 5000, "1e999", "-1e999", "NaN", "Infinity", "-" + "7" * 40, "1e99"])
    return Malformed("huge number", post(f'{{"prompt": "a", "{name}": {number}}}'.encode()))


def _broken_utf8(source: random.Random) -> Malformed:
    broken = source.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80"])
    return Malformed("broken UTF-8", post(b'{"prompt": "a' + broken + b'"}'))


def _cut_body(source: random.Random) -> Malformed:
    whole = post(json.dumps({"prompt": "the king", "max_tokens": 3}).encode())
    return Malformed("cut body", whole[: source.randrange(5, len(whole))], closes=True)


def _cut_json(source: random.Random) -> Malformed:
    body = json.dumps({"prompt": ["the king"], "stop": ["a"], "max_tokens": 3}).encode()
    return Malformed("cut JSON", post(body[: source.randrange(len(body))]))


def _noise(source: random.Random) -> Malformed:
    head = source.choice([b"", b"POST ", b"GET / HTTP/9.9\r\n", b"POST /v1/completions HTTP/1.1\r\n: x\r\n"])
    return Malformed("no HTTP", head + source.randbytes(source.randrange(1, 200)) + b"\r\n\r\n", closes=True)


def _unknown_path(source: random.Random) -> Malformed:
    method = source.choice(["GET", "DELETE", "PUT", "OPTIONS", "PATCH"])
    path = source.choice(
        ["/v1/completions", "/../../etc/passwd", "/v1/chat/completions", "/%00", "/v1/models/no%20model"]
    )
    return Malformed("unknown path", f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())


def _wrong_media_type(source: random.Random) -> Malformed:
    media = source.choice(
        ["text/plain", "multipart/form-data", "application/xml", "", "application/x-www-form-urlencoded"]
    )
    return Malformed("media type", post(b'{"prompt": "a"}', media=media))


def _large_body(source: random.Random) -> Malformed:
    if source.random() < 0.5:
        return Malformed("large body", post(b"", length=source.choice(["99999999", "9" * 15, "9" * 19])), closes=True)
    return Malformed("large body", post(b'{"prompt": "' + b"a " * (600_000) + b'"}'))


def _bad_length(source: random.Random) -> Malformed:
    length = source.choice(["-1", "abc", "1.5", "0x10", "1, 2"])
    return Malformed("bad length", post(b'{"prompt": "a"}', length=length), closes=True)


def _odd_prompt(source: random.Random) -> Malformed:
    prompt = source.choice(
        [[], [[]] * 200, [-1], [10**9], [1.5], ["a", 1], [1, "a"], {"a": 1}, 5, True, "\udfff", "a " * 9000]
    )
    return Malformed("odd prompt", post(json.dumps({"prompt": prompt}).encode()))


def _slow(source: random.Random) -> Malformed:
    whole = post(b'{"prompt": "a"}')
    begin = source.choice([0, 10, len(whole) - 15])
    return Malformed("slow sender", whole[:begin], whole[begin : begin + 14], pause=0.2)
