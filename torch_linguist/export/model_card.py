"""`MODEL_CARD.md`: what a model is, what it was made from, how good it is, and what it is not for."""

from collections.abc import Mapping, Sequence
from typing import Any

FORMATS: Mapping[str, str] = {
    "jit": 'TorchScript: `torch.jit.load(FILE).generate("text", 50)`; needs only torch',
    "pt2": "torch.export: `torch.export.load(FILE).module()(tokens, state)`; `settings.json` in it says the state",
    "onnx": "ONNX: inputs `tokens`, `state_0` …, outputs `logits`, `new_state_0` …; zeros to begin with",
    "int8": "TorchScript with eight-bit weights: as `jit`",
}


def model_card(
    name: str, summary: Mapping[str, Any], command: str, files: Sequence[Mapping[str, Any]], sample: str = ""
) -> str:
    """The card as Markdown.

    Args:
        name: of the model.
        summary: content of `summary.json`; what it lacks is left out.
        command: the line that wrote the files.
        files: of each export `format`, `name`, `mebibytes` and `facts` (a text).
        sample: a continuation by the model.
    """
    parts = [
        f"# {name}",
        _what(summary),
        "## Data",
        _data(summary),
        "## Scores",
        _scores(summary),
        "## Training",
        _training(summary),
        "## Files",
        f"Written by `{command}`.",
        "\n".join(
            f"- `{one['name']}` ({one['mebibytes']:.1f} MiB): {FORMATS[one['format']]}. {one['facts']}" for one in files
        ),
        *(["## A sample", "\n".join(f"> {line}" for line in sample.splitlines())] if sample else []),
        "## Limits",
        _limits(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(summary: Mapping[str, Any]) -> str:
    parameters = summary.get("parameters")
    size = f" of {parameters:,} parameters" if isinstance(parameters, int) else ""
    return (
        f"A language model ({summary.get('model') or 'of unknown kind'}){size}, trained from scratch with "
        "torch-linguist. It gives the probability of the next token of a text."
    )


def _data(summary: Mapping[str, Any]) -> str:
    lines = [f"- corpus: {summary.get('data') or 'unknown'}"]
    tokenizer, types = summary.get("tokenizer"), summary.get("vocab_size")
    if tokenizer:
        lines.append(f"- tokenizer: {tokenizer}{f', {types:,} types' if isinstance(types, int) else ''}")
    lines.append("- the vocabulary comes from the training split alone; test was looked at once, after the training")
    return "\n".join(lines)


def _scores(summary: Mapping[str, Any]) -> str:
    rows = [
        (split, summary[split])
        for split in ("valid", "test")
        if isinstance(summary.get(split), Mapping) and "perplexity" in summary[split]
    ]
    if not rows:
        return "The run was not scored; `tl-eval` scores it."
    lines = [
        "| split | tokens | perplexity | word perplexity | bits per byte | out of vocabulary |",
        "|---|---|---|---|---|---|",
    ]
    for split, score in rows:
        cells = [_number(score.get(key), places) for key, places in _COLUMNS]
        rate = score.get("oov_rate")
        shown = f"{rate:.2%}" if isinstance(rate, float) else "?"
        lines.append(f"| {split} | {' | '.join(cells)} | {shown} |")
    return "\n".join([*lines, "", "Every token was scored once, `<eos>` included."])


_COLUMNS = (("tokens", 0), ("perplexity", 2), ("word_perplexity", 2), ("bits_per_byte", 4))


def _number(value: Any, places: int) -> str:
    return f"{value:,.{places}f}" if isinstance(value, int | float) else "?"


def _training(summary: Mapping[str, Any]) -> str:
    train = summary.get("train") or {}
    facts = {
        "status": summary.get("status"),
        "command": f"`{summary['command']}`" if summary.get("command") else None,
        "learning rate": summary.get("lr"),
        "weight decay": summary.get("weight_decay"),
        "seed": summary.get("seed"),
        "tokens": f"{train['tokens']:,}" if isinstance(train.get("tokens"), int) else None,
        "epochs": f"{train['epochs']:.2f}" if isinstance(train.get("epochs"), float) else None,
        "device": summary.get("device"),
        "versions": ", ".join(f"{name} {version}" for name, version in (summary.get("versions") or {}).items()) or None,
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _limits(summary: Mapping[str, Any]) -> str:
    lines = [
        "- It continues texts like those it was trained on; it knows no facts, follows no instructions, and repeats "
        "the slants and errors of its corpus.",
        "- Its scores hold for that corpus and tokenizer; on other text they are worse.",
    ]
    if summary.get("tokenizer") == "word":
        lines.append("- Words outside its vocabulary are read as `<unk>`, which it never writes.")
    if summary.get("status") not in ("finished", None):
        lines.append(f"- Its training did not end by itself (status {summary['status']}).")
    return "\n".join(lines)
