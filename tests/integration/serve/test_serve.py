"""`tl-serve` as a process: OpenAI's client, limits and their status codes, clients that leave, and its end."""

import http.client
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from malformed_requests import exchange, malformed, post
from serving import Server, ask, get, metric, start, stop
from small_runs import make_counted_and_trained
from test_commands import environment

from torch_linguist.checkpoint import LoadedRun, load_run
from torch_linguist.evaluation.texts.line_scores import score_blocks
from torch_linguist.generation import Sampling, continue_prompt

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

pytestmark = pytest.mark.xdist_group("serve")

MALFORMED = int(os.environ.get("TL_MALFORMED", "80"))
"""Malformed requests that are sent; the full test sends 1,000."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedRun]:

    folder = tmp_path_factory.mktemp("served")
    make_counted_and_trained(folder)
    return {name: load_run(folder / name) for name in ("trained", "counted")}


@pytest.fixture(scope="module")
def server(runs: dict[str, LoadedRun]) -> Iterator[Server]:
    server = start(runs, "--weights", "0.5", "0.5", "--body-seconds", "1", "--prompt", "line 3 tells")
    yield server
    assert stop(server) == ("stopped\n", "")


def test_openais_client_gets_what_the_model_says_in_process(server: Server, runs: dict[str, LoadedRun]) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["trained", "counted", "mixture"]
    assert client.models.retrieve("mixture").id == "mixture"
    for name, run in runs.items():
        options = {"max_tokens": 12, "temperature": 0.8, "top_p": 0.9, "seed": 3}
        answer = client.completions.create(model=name, prompt=["line 3", "line"], n=2, logprobs=2, echo=True, **options)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.usage.completion_tokens == 48
        for choice in answer.choices:
            prompt, seed = ("line 3", "line")[choice.index // 2], 3 + choice.index % 2
            (expected,) = continue_prompt(
                run.model, run.tokenizer, prompt, Sampling(0.8, top_p=0.9), max_tokens=12, seed=seed
            )
            assert choice.text == prompt + expected.new_text
            assert sum(choice.logprobs.token_logprobs[-12:]) == pytest.approx(expected.log_probability, rel=1e-4)
            assert max(map(len, choice.logprobs.top_logprobs)) <= 3
        whole = client.completions.create(model=name, prompt="line 3", **options)
        pieces = list(client.completions.create(model=name, prompt="line 3", stream=True, **options))
        assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
        assert len(pieces) > 3
        assert pieces[-1].choices[0].finish_reason == "length"
        stop = whole.choices[0].text[10:14]
        stopped = client.completions.create(model=name, prompt="line 3", stop=[stop], **options).choices[0]
        assert stopped.text == whole.choices[0].text.partition(stop)[0]
        assert stopped.finish_reason == "stop"
        ids = run.tokenizer.encode("line 3")
        assert client.completions.create(model=name, prompt=ids, **options).choices == whole.choices
    with pytest.raises(openai.NotFoundError, match="choose trained, counted, mixture"):
        client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.BadRequestError, match="temperature: must be a number from 0 to 2"):
        client.completions.create(model="trained", prompt="a", temperature=7)


def test_a_scored_prompt_has_the_scores_of_tl_score(server: Server, runs: dict[str, LoadedRun]) -> None:
    text = "line 3 tells that 3 and 4 meet again . " * 20
    for name, run in runs.items():
        status, answer = ask(
            server, {"model": name, "prompt": text.strip(), "max_tokens": 0, "echo": True, "logprobs": 1}
        )
        assert status == 200
        (expected,) = score_blocks(run.model, run.tokenizer, [text], closed=False)
        found = torch.tensor(answer["choices"][0]["logprobs"]["token_logprobs"], dtype=torch.float64)
        torch.testing.assert_close(found, -torch.from_numpy(expected.nll), atol=1e-4, rtol=1e-4)


def test_many_clients_at_once_get_what_each_gets_alone(server: Server) -> None:
    bodies = [
        {
            "model": ("trained", "counted", "mixture")[index % 3],
            "prompt": "line 3 tells that 3 and 4 meet again . " * (index % 5),
            "max_tokens": 5 + 3 * index,
            "seed": index,
        }
        for index in range(24)
    ]
    alone = [ask(server, body)[1]["choices"] for body in bodies]
    found: list[Any] = [None] * len(bodies)

    def send(index: int) -> None:
        found[index] = ask(server, bodies[index])[1]["choices"]

    threads = [threading.Thread(target=send, args=[index]) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_malformed_requests_get_a_line_and_a_4xx(server: Server) -> None:
    seen: Counter[int] = Counter()
    pending: queue.Queue[Any] = queue.Queue()
    for one in malformed(MALFORMED, seed=1):
        pending.put(one)
    wrong: list[str] = []

    def work() -> None:
        while True:
            try:
                one = pending.get_nowait()
            except queue.Empty:
                return
            answer = exchange(server.port, one)
            status = int(answer.split(b" ", 2)[1]) if answer else 0
            body = answer.partition(b"\r\n\r\n")[2]
            seen[status] += 1
            is_said = answer.startswith(b"HEAD") or (400 <= status < 500 and b"\n" not in body and b'"message"' in body)
            if not is_said:
                wrong.append(f"{one.kind}: {one.head[:200]!r} -> {answer[:300]!r}")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:5]
    assert seen.total() == MALFORMED
    assert len(seen) > 4
    assert ask(server, {"prompt": "line", "max_tokens": 2})[0] == 200
    assert server.process.poll() is None


def test_limits_have_their_status_codes(server: Server) -> None:
    assert ask(server, {"prompt": "a"}, "/v1/nothing")[0] == 404
    assert get(server, "/v1/completions")[0] == 405
    assert ask(server, {"prompt": "a"}, **{"content-type": "text/plain"})[0] == 415
    assert ask(server, {"prompt": "a " * 600_000})[0] == 413
    assert ask(server, {"prompt": "a", "max_tokens": 5000})[0] == 400
    assert ask(server, {"tokens": [0] * 100, "begin": 0}, "/page/distributions")[0] == 400
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(post(b"", length="5"))
        assert b" 408 " in connection.recv(1000)


def test_a_client_that_leaves_ends_its_work(server: Server) -> None:
    for stream in (True, False):
        before = metric(server, "completion_tokens_total")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        body = {"prompt": "line", "max_tokens": 4000, "n": 16, "stream": stream}
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        while metric(server, "completion_tokens_total") < before + 100:
            time.sleep(0.01)
        connection.sock.close()
        deadline = time.monotonic() + 10
        while metric(server, "completions_running") + metric(server, "requests_open"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert metric(server, "completion_tokens_total") < before + 64_000


def test_a_token_is_asked_for(runs: dict[str, LoadedRun]) -> None:
    server = start(runs, "--token", "secret")
    assert get(server, "/health") == (200, '{"status":"ok"}')
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic !"}, {"authorization": "secret"}):
        for path in ("/", "/metrics", "/v1/models"):
            assert get(server, path, **headers)[0] == 401
        status, answer = ask(server, {"prompt": "a"}, **headers)
        assert status == 401
        assert "the token is missing or wrong" in answer["error"]["message"]
    for given in ("Bearer secret", "Basic OnNlY3JldA=="):
        assert get(server, "/", authorization=given)[0] == 200
        assert ask(server, {"prompt": "a", "max_tokens": 1}, authorization=given)[0] == 200
    stop(server)


def test_sigterm_finishes_what_runs_and_refuses_the_rest(runs: dict[str, LoadedRun]) -> None:
    server = start(runs, "--rows", "1", "--max-requests", "2")
    found: dict[str, tuple[int, Any]] = {}

    def send(name: str, tokens: int) -> threading.Thread:
        def work() -> None:
            found[name] = ask(server, {"prompt": "line", "max_tokens": tokens})

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    threads = [send("running", 3000)]
    while not metric(server, "completions_running"):
        time.sleep(0.01)
    threads.append(send("waiting", 5))
    while not metric(server, "completions_waiting"):
        time.sleep(0.01)
    send("third", 5).join()
    stop(server)
    for thread in threads:
        thread.join()
    assert found["running"][0] == 200
    assert found["running"][1]["usage"]["completion_tokens"] == 3000
    assert {name: found[name][0] for name in ("waiting", "third")} == {"waiting": 503, "third": 429}
    with pytest.raises(ConnectionRefusedError):
        get(server, "/health")


def test_the_page_shows_what_the_server_computes(server: Server, runs: dict[str, LoadedRun], tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs chromium to show the page")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--timeout=20000", "--virtual-time-budget=20000"]
    line = [browser, *flags, f"--user-data-dir={tmp_path}", "--dump-dom", server.url]
    shown = subprocess.run(line, capture_output=True, text=True, timeout=200, check=True).stdout
    run = runs["trained"]
    (scored,) = score_blocks(run.model, run.tokenizer, ["line 3 tells"], closed=False)
    (perplexity,) = re.findall(r"3 tokens, perplexity ([\d.]+)", shown)
    assert float(perplexity) == pytest.approx(float(torch.tensor(scored.nll).mean().exp()), rel=1e-3)
    labels = [unescape(label) for label in re.findall(r'class="bar"[^>]*aria-label="([^"]+), [\d.]+%"', shown)]
    ids = [run.tokenizer.eos_id, *run.tokenizer.encode("line 3 tells")[:2]]
    logits, _ = run.model(torch.tensor([ids]), run.model.initial_state(1))
    ranked = [run.tokenizer.tokens[token] for token in logits[0, -1].argsort(descending=True).tolist()]
    assert labels == [token for token in ranked if token.startswith("tells")][: len(labels)] != []
    # The first model is an LSTM: its gates, its cell and its hidden vector, over three words.
    line[-1] += "#inside"
    shown = subprocess.run(line, capture_output=True, text=True, timeout=200, check=True).stdout
    inside = shown.partition('id="inside-area"')[2].partition('id="compare"')[0]
    assert inside.count("<table") == 3
    assert len(re.findall(r'title="forget gate, [^":]+: 0\.\d+"', inside)) == 3


def test_the_page_gets_every_model_for_its_inside(server: Server) -> None:
    for name, family in (("trained", "lstm"), ("counted", "ngram"), ("mixture", "mixture")):
        status, content = get(server, f"/page/model/{name}")
        assert status == 200
        assert json.loads(content)["model"]["family"] == family
    assert get(server, "/page/model/other")[0] == 404


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "--port=70000: must be between 0 and 65535"),
        (["--rows", "0"], "rows=0: must be greater than 0"),
        (["--weights", "1"], "--weights: 1 weights for 2 runs"),
        (["--token", "a b"], "--token: must be ASCII without blanks"),
        (["--host", "999.1.1.1"], "999.1.1.1:8000: cannot listen"),
    ],
)
def test_a_wrong_option_is_one_line(
    runs: dict[str, LoadedRun], capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    from torch_linguist.cli import serve

    assert serve.main([*(str(run.folder) for run in runs.values()), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_lm_eval_gets_the_scores_of_the_model_in_process(
    server: Server, runs: dict[str, LoadedRun], tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    pytest.importorskip("tenacity", reason='needs pip install "lm-eval[api]"')
    transformers = pytest.importorskip("transformers")
    run = runs["trained"]
    choices = ["meet again .", "tells that 3", "and"]
    rows = [{"context": f"line {n} tells that {n % 7} and", "label": n % 3, "choices": choices} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    (tmp_path / "task.yaml").write_text(
        f"""
task: served
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "rows.jsonl"}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{context}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list: [{{metric: acc}}]
""",
        encoding="utf-8",
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(run.folder / "tokenizer.json"), eos_token="<eos>", unk_token="<unk>"
    )
    fast.save_pretrained(tmp_path / "tokenizer")
    arguments = f"model=trained,base_url={server.url}v1/completions,tokenizer={tmp_path / 'tokenizer'}"
    line = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--tasks", "served"]
    line += [
        "--include_path",
        str(tmp_path),
        "--model_args",
        arguments,
        "--log_samples",
        "--output_path",
        str(tmp_path),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(line, env=environment() | offline, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = tmp_path.rglob("samples_served_*.jsonl")
    found = [json.loads(sample) for sample in samples.read_text(encoding="utf-8").splitlines()]
    assert len(found) == len(rows)
    for sample in found:
        for choice, ((log_prob, greedy),) in zip(choices, sample["resps"], strict=True):
            context = run.tokenizer.encode(sample["doc"]["context"])
            (expected,) = score_blocks(run.model, run.tokenizer, [f"{sample['doc']['context']} {choice}"], closed=False)
            assert float(log_prob) == pytest.approx(-float(expected.nll[len(context) :].sum()), rel=1e-4)
            assert str(greedy) in ("True", "False")
