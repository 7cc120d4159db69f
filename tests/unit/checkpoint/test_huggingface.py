"""`init_from=hf:FOLDER`: checkpoints made with `transformers`, read by this package."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from torch_linguist.checkpoint.init_from import starting_point
from torch_linguist.data import BPETokenizerTrainer, InMemoryCorpus, Tokenizer
from torch_linguist.data.tokenizers.huggingface import to_huggingface
from torch_linguist.errors import LinguistError

transformers = pytest.importorskip("transformers", reason='needs pip install "torch-linguist[hf]"')
pytestmark = pytest.mark.integrations

Save = Callable[..., Path]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "rms_norm_eps": 1e-5,
}


@pytest.fixture(scope="module")
def tokenizer(source_corpus: InMemoryCorpus) -> Tokenizer:
    return BPETokenizerTrainer(vocab_size=300).train(source_corpus)


def save(folder: Path, tokenizer: Tokenizer, kind: str, rows: int, **options: Any) -> Path:
    """A random checkpoint of a kind with `rows` rows in its embedding."""
    torch.manual_seed(5)
    config = getattr(transformers, f"{kind}Config")(vocab_size=rows, **(SIZES | options))
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    model.save_pretrained(folder)
    description, names = to_huggingface(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Llama", {"tie_word_embeddings": True, "max_position_embeddings": 64}),
        ("Llama", {"tie_word_embeddings": False, "max_position_embeddings": 64}),
        ("Mistral", {"tie_word_embeddings": False, "sliding_window": 7}),
        ("Mistral", {"tie_word_embeddings": True, "sliding_window": None, "max_position_embeddings": 64}),
    ],
)
@pytest.mark.parametrize("surplus", [0, 9])
def test_logits_equal_those_of_transformers(
    kind: str, options: dict[str, Any], surplus: int, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = tokenizer.vocab_size + surplus
    start = starting_point(f"hf:{save(tmp_path, tokenizer, kind, rows, **options)}")
    assert start.tokenizer is not None
    assert start.tokenizer.vocab_size == rows
    text = "the café\n\n 12 zebras 😀 <unk>"
    assert start.tokenizer.encode(text) == tokenizer.encode(text)
    model = start.family(vocab_size=rows, **start.arguments, dropout=0.0, output="full").eval()
    assert "parameters" in start.load(model, start.tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = torch.randint(rows, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, _ = model(tokens, model.initial_state(2))
        torch.testing.assert_close(logits, theirs(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, r"model_type='gpt2' is not known; give a checkpoint of llama or mistral"),
        ({"attention_bias": True}, r"attention_bias=True has no counterpart"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, r"rope_scaling=.*yarn.* has no counterpart"),
        ({"head_dim": 16}, r"head_dim=16 has no counterpart"),
        ({"intermediate_size": 64}, r"do not belong together"),
        ({"num_hidden_layers": 3}, r"has no weights model\.layers\.2\..*not a complete checkpoint"),
        ({"num_hidden_layers": 1}, r"weights that its config\.json does not describe"),
        ({"hidden_size": None}, r"not the config\.json of a llama model"),
    ],
)
def test_what_does_not_fit_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    save(tmp_path, tokenizer, "Llama", tokenizer.vocab_size)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(LinguistError, match=message) as caught:
        _load(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


def _load(source: str) -> None:
    start = starting_point(source)
    assert start.tokenizer is not None
    start.load(start.family(start.tokenizer.vocab_size, **start.arguments), start.tokenizer)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for source, message in (
        (f"hf:{tmp_path}", "has no config.json"),
        (f"hf:{tmp_path}/none", "there is no such folder"),
        ("elsewhere", "elsewhere: no such run folder"),
    ):
        with pytest.raises(LinguistError, match=message):
            starting_point(source)
    save(tmp_path, tokenizer, "Llama", tokenizer.vocab_size - 1)
    with pytest.raises(LinguistError, match="the tokenizer has 300 types, the model 299"):
        starting_point(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(LinguistError, match="cannot be read"):
        starting_point(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(LinguistError, match=r"has no model\.safetensors"):
        starting_point(f"hf:{tmp_path}")


class FakeHub(BaseHTTPRequestHandler):
    """The two paths of the hub's API that a download uses: the files of a repository, and each of them."""

    folder: ClassVar[Path]
    asked: ClassVar[list[str]] = []
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        files = {file.name: file for file in self.folder.iterdir()}
        if path.startswith("/api/models/someone/small/tree/"):
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": name} for name, file in files.items()
            ]
            content = json.dumps(tree).encode()
        elif path.startswith("/api/models/someone/small"):
            siblings = [{"rfilename": name} for name in [*files, "training.bin"]]
            content = json.dumps({"id": "someone/small", "sha": self.commit, "siblings": siblings}).encode()
        elif path.startswith("/someone/small/resolve/") and path.rpartition("/")[2] in files:
            content = files[path.rpartition("/")[2]].read_bytes()
        else:
            self.send_response(404)
            self.send_header("x-error-code", "RepoNotFound")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-repo-commit", self.commit)
        self.send_header("etag", f'"{len(content)}-{path.rpartition("/")[2]}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the base class
        pass


def test_a_checkpoint_comes_from_the_hub(tmp_path: Path, tokenizer: Tokenizer) -> None:
    FakeHub.folder = save(tmp_path / "small", tokenizer, "Llama", tokenizer.vocab_size)
    FakeHub.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The library reads the address of the hub when it is imported, hence a process of its own.
    program = (
        "import sys; from torch_linguist.checkpoint.init_from import starting_point\n"
        "start = starting_point(sys.argv[1]); model = start.family(start.tokenizer.vocab_size, **start.arguments)\n"
        "print(start.load(model, start.tokenizer))"
    )
    variables = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | variables

    def load(name: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-c", program, f"hf:{name}"]
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=200, check=False)

    done = load("someone/small")
    assert "parameters" in done.stdout, done.stderr[-2000:]
    assert any("model.safetensors" in path for path in FakeHub.asked)
    assert not any("training.bin" in path for path in FakeHub.asked)
    missing = load("someone/else")
    server.shutdown()
    assert "init_from=hf:someone/else: is not a folder, and the hub does not provide it" in missing.stderr
