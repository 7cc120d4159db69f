"""`MODEL_CARD.md`: what a model is, what it was trained on, how good it is, and its limits."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_linguist.export.exporting import ExportedFile

_SCORE_COLUMNS = (("tokens", 0), ("perplexity", 2), ("word_perplexity", 2), ("bits_per_byte", 4))


def model_card(
    name: str, summary: Mapping[str, Any], command: str, files: "Sequence[ExportedFile]", sample: str = ""
) -> str:
    """Return the card as Markdown.

    Args:
        name: name of the model.
        summary: content of `summary.json`; missing entries are left out of the card.
        command: command line that wrote the files.
        files: exported files.
        sample: continuation that the model generated.
    """
    described = [
        f"- `{one.report.path.name}` ({one.report.mebibytes:.1f} MiB): {one.format.description}. {one.facts}"
        for one in files
    ]
    parts = [
        f"# {_escaped(name)}",
        _what(summary),
        "## Data",
        _data(summary),
        "## Scores",
        _scores(summary),
        "## Training",
        _training(summary),
        "## Files",
        f"Written by {_code(command)}.",
        "\n".join(described),
        *(["## A sample", "\n".join(f"> {_escaped(line)}" for line in sample.splitlines())] if sample else []),
        "## Limits",
        _limits(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _escaped(text: Any) -> str:
    """Return a text of one line whose characters have no meaning in Markdown or HTML."""
    plain = "".join(character if character.isprintable() else " " for character in str(text))
    return "".join(f"\\{character}" if character in "\\`*_[]<>#|" else character for character in plain)


def _code(text: Any) -> str:
    plain = "".join(character if character.isprintable() else " " for character in str(text))
    return f"`{plain.replace('`', chr(39))}`"


def _what(summary: Mapping[str, Any]) -> str:
    parameters = summary.get("parameters")
    size = f" with {parameters:,} parameters" if isinstance(parameters, int) else ""
    origin = f"from the weights of {_code(summary['init_from'])}" if summary.get("init_from") else "from scratch"
    return (
        f"A language model ({_escaped(summary.get('model') or 'of unknown kind')}){size}, trained {origin} with "
        "torch-linguist. It predicts the probability of the next token of a text."
    )


def _data(summary: Mapping[str, Any]) -> str:
    lines = [f"- corpus: {_escaped(summary.get('data') or 'unknown')}"]
    tokenizer, types = summary.get("tokenizer"), summary.get("vocab_size")
    if tokenizer:
        count = f", {types:,} types" if isinstance(types, int) else ""
        lines.append(f"- tokenizer: {_escaped(tokenizer)}{count}")
    lines.append("- the vocabulary comes from the training split alone; the test split was scored once, after training")
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
        cells = [_number(score.get(key), places) for key, places in _SCORE_COLUMNS]
        rate = score.get("oov_rate")
        shown = f"{rate:.2%}" if isinstance(rate, float) else "?"
        lines.append(f"| {split} | {' | '.join(cells)} | {shown} |")
    return "\n".join([*lines, "", "Every token was scored once, `<eos>` included."])


def _number(value: Any, places: int) -> str:
    return f"{value:,.{places}f}" if isinstance(value, int | float) else "?"


def _training(summary: Mapping[str, Any]) -> str:
    train = summary.get("train") or {}
    versions = ", ".join(f"{name} {version}" for name, version in (summary.get("versions") or {}).items())
    facts = {
        "status": summary.get("status"),
        "learning rate": summary.get("lr"),
        "weight decay": summary.get("weight_decay"),
        "seed": summary.get("seed"),
        "tokens": f"{train['tokens']:,}" if isinstance(train.get("tokens"), int) else None,
        "epochs": f"{train['epochs']:.2f}" if isinstance(train.get("epochs"), float) else None,
        "device": summary.get("device"),
        "versions": versions or None,
    }
    lines = [f"- {name}: {_escaped(value)}" for name, value in facts.items() if value is not None]
    if summary.get("command"):
        lines.insert(0, f"- command: {_code(summary['command'])}")
    return "\n".join(lines)


def _limits(summary: Mapping[str, Any]) -> str:
    lines = [
        "- It continues texts like those it was trained on. It knows no facts, follows no instructions, and repeats "
        "the biases and errors of its corpus.",
        "- Its scores hold for that corpus and tokenizer; on other text they are worse.",
    ]
    if summary.get("tokenizer") == "word":
        lines.append("- It reads words outside its vocabulary as `<unk>`, which it never writes.")
    if summary.get("status") not in ("finished", None):
        lines.append(f"- Its training did not finish (status {_escaped(summary['status'])}).")
    return "\n".join(lines)
