"""A trained model in one HTML file that runs by itself: `tl-export --html`."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.export.html.packing import Blob, pack
from torch_linguist.model import LanguageModel
from torch_linguist.runs.files import write_text

SCRIPTS = ("tensors.js", "tokenizer.js", "networks.js", "ngram.js", "session.js", "served.js", "app.js", "inside.js")

FACTS = ("model", "data", "tokenizer", "vocab_size", "parameters", "seed", "lr", "weight_decay")
"""What of a run's summary the page shows."""


@dataclass(frozen=True, eq=False)
class PageModel:
    """A model for a page.

    Attributes:
        label: name of the model on the page.
        model: any of the package's families.
        tokenizer: the tokenizer that it was trained with.
        summary: content of the run's `summary.json`.
        curves: its `curves.png`, if it has one.
    """

    label: str
    model: LanguageModel
    tokenizer: Tokenizer
    summary: Mapping[str, Any]
    curves: Path | None = None


def write_html(models: Sequence[PageModel], path: Path, prompt: str = "") -> int:
    """Write a page in which models run.

    Args:
        models: at least one; two or more are compared on the same text.
        path: path of the file.
        prompt: text that the page begins with.

    Returns:
        The bytes of the file.

    Raises:
        LinguistError: there is no model, or one that a page has no code for.
    """
    write_text(path, render_html(models, prompt))
    return path.stat().st_size


def render_html(models: Sequence[PageModel], prompt: str = "", *, served: bool = False) -> str:
    """Return a page in which models run, or one that takes its probabilities from `tl-serve`.

    Args:
        models: see `write_html`.
        prompt: see `write_html`.
        served: whether the page asks the server that it comes from and holds no weights.

    Raises:
        LinguistError: see `write_html`.
    """
    if not models:
        raise LinguistError("--html: needs at least one model")
    assets = files("torch_linguist.export.html") / "assets"
    data: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for index, one in enumerate(models):
        weights, weights_id = "", f"weights-{index}"
        run = {"label": one.label, "tokenizer": tokenizer_description(one.tokenizer)}
        if not served:
            run["model"], weights = packed_text(one.model, [other.model for other in models[:index]])
            run["weights"] = weights_id
        data.append(run)
        shown.append(
            {
                "label": one.label,
                "scores": _scores(one.summary),
                "facts": [(name, _shown(one.summary[name])) for name in FACTS if one.summary.get(name) is not None],
                "curves": _picture(one.curves),
                "weights_id": weights_id,
                "weights": weights,
            }
        )
    template = Environment(autoescape=True).from_string((assets / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=" and ".join(one.label for one in models),
        style=(assets / "style.css").read_text(encoding="utf-8"),
        script="\n".join((assets / name).read_text(encoding="utf-8") for name in SCRIPTS),
        data=_script_json({"runs": data}),
        prompt=prompt,
        runs=shown,
        served=served,
    )


def packed_text(model: LanguageModel, earlier: Sequence[LanguageModel] = ()) -> tuple[dict[str, Any], str]:
    """Return a model as the page's code takes it: its description, and its weights, compressed, in base64.

    Args:
        model: any of the package's families.
        earlier: models that the page holds already.

    Raises:
        LinguistError: the page has no code for this model.
    """
    blob = Blob()
    description = pack(model, blob, earlier)
    return description, base64.b64encode(zlib.compress(bytes(blob.content), 9)).decode()


def _script_json(value: Any) -> str:
    """JSON inside a script element, where `<` must not begin a tag."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _scores(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    for split in ("valid", "test"):
        score = summary.get(split)
        if isinstance(score, Mapping) and all(isinstance(score.get(key), int | float) for key in ("tokens", "loss")):
            found.append(
                {
                    "split": split,
                    "tokens": f"{score['tokens']:,}",
                    "perplexity": _number(score.get("perplexity"), 2),
                    "bits_per_byte": _number(score.get("bits_per_byte"), 4),
                }
            )
    return found


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "–"


def _picture(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def tokenizer_description(tokenizer: Tokenizer) -> dict[str, Any]:
    """What the page's tokenizer needs: tokens, how text is cut, merges or scores, changes of the text."""
    backend = json.loads(tokenizer.to_json())
    model = backend["model"]
    is_whitespace = (backend.get("pre_tokenizer") or {}).get("type") == "WhitespaceSplit"
    description: dict[str, Any] = {
        "kind": tokenizer.kind,
        "tokens": list(tokenizer.tokens),
        "eos_id": tokenizer.eos_id,
        "unk_id": tokenizer.unk_id,
        "split": "whitespace" if is_whitespace else "punctuation",
        "normalizers": _normalizers(backend.get("normalizer")),
    }
    if merges := model.get("merges"):
        description["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    if model["type"] == "Unigram":
        scores = dict(model["vocab"])
        description["scores"] = [scores.get(token, -100.0) for token in tokenizer.tokens]
        description["longest"] = max(map(len, tokenizer.tokens))
    return description


def _normalizers(normalizer: Mapping[str, Any] | None) -> list[list[str]]:
    """[type, pattern, replacement] of each change of the text, in order."""
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [one for inner in normalizer["normalizers"] for one in _normalizers(inner)]
    pattern = normalizer.get("pattern") or {}
    return [[normalizer["type"], pattern.get("Regex") or pattern.get("String") or "", normalizer.get("content", "")]]
