"""A `tl-serve` process for the tests, and requests to it."""

import http.client
import json
import re
import signal
import subprocess
import sys
from typing import Any, NamedTuple

from test_commands import environment

from torch_linguist.checkpoint import LoadedRun


class Server(NamedTuple):
    """A running `tl-serve`."""

    process: "subprocess.Popen[str]"
    url: str
    port: int


def start(runs: dict[str, LoadedRun], *options: str) -> Server:
    line = [
        sys.executable,
        "-m",
        "torch_linguist.cli.serve",
        *(str(run.folder) for run in runs.values()),
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        [*line, *options], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    found = re.match(r"(http://127\.0\.0\.1:(\d+)/) serves trained, counted", said)
    assert found, said
    return Server(process, found[1], int(found[2]))


def stop(server: Server) -> tuple[str, str]:
    """Ends a server; returns what it has written."""
    server.process.send_signal(signal.SIGTERM)
    written = server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    return written


def ask(server: Server, body: Any, path: str = "/v1/completions", **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"} | headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def get(server: Server, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


def metric(server: Server, name: str) -> float:
    (found,) = re.findall(rf"^torch_linguist_{name} (\S+)$", get(server, "/metrics")[1], re.M)
    return float(found)
