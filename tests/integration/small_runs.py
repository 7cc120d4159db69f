"""A small text and small runs on it, which several tests use."""

from pathlib import Path

from torch_linguist.cli import train


def write_tale(folder: Path, lines: int = 400) -> Path:
    """Write `tale.txt` into a folder and return the folder."""
    text = [f"line {number} tells that {number % 7} and {number % 5} meet again ." for number in range(lines)]
    (folder / "tale.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    return folder


def make_counted_and_trained(folder: Path) -> None:
    """Make the runs `counted` (3-grams) and `trained` (a small LSTM) on the tale, in a folder."""
    text = ["data=text", f"data.path={write_tale(folder, 200) / 'tale.txt'}", f"output_dir={folder}"]
    assert train.main([*text, "model=ngram", "model.order=3", "name=counted"]) == 0
    small = ["model.hidden_size=16", "optim.lr=0.01", "optim.weight_decay=0", "stages=[fit]"]
    assert train.main([*text, "experiment=debug", "model=lstm", *small, "name=trained"]) == 0
