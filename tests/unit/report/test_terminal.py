"""Terminal output of a run: on terminals of any width, in log files, and in any encoding."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from torch_linguist.evaluation import Score
from torch_linguist.report import TerminalObserver, closing_table, score_table
from torch_linguist.report.terminal import duration, fit_row, large_number, progress_text, shown
from torch_linguist.runs.output_encoding import tolerate_encoding

SCORE = Score(1234567, 1000, 9000, 0.0125, 4.5, 90.017, 123.456, 1.6543)

FACTS = {
    "train_loss": 4.2134, "train_perplexity": 67.6, "tokens_per_second": 1_234_567.0, "seconds_left": 3541.0,
    "best_valid_perplexity": 12_345.6, "lr": 0.00123,
}  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.24, "4.2 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (59.96, "1 min 00 s"), (3599.7, "1 h 00 min"),
     (math.inf, "?")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (1234567, "1,234,567"), (12.5, "12.5"), (0.0005, "0.0005"), (2345.6, "2,346"), (0, "0")],
)
def test_facts(value: str | int | float, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (93.2123, "93.21"),
        (12345.6, "12,346"),
        (4.2e31, "4.2e+31"),
        (math.inf, "inf"),
        (math.nan, "–"),
        (999.5, "999.50"),
    ],
)
def test_large_numbers_stay_short(value: float, text: str) -> None:
    assert large_number(value) == text


@pytest.mark.parametrize("live", [True, False])
def test_a_run_from_header_to_table(live: bool) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=live, width=100, highlight=False)
    observer = TerminalObserver(console)
    observer.header({"corpus": {"name": "[made]", "documents": 3}, "model": {"parameters": 1234}})
    observer.stage_started("fit", "optim.lr=[auto]")
    observer.progressed("fit", 0.5, {"train_loss": 3.2, "seconds_left": 61.0})
    observer.logged({"train_loss": 2.75, "tokens_per_second": 4321.0, "seconds": 8.0}, 900)
    observer.logged({"valid_loss": 2.5, "valid_perplexity": 12.18, "seconds": 9.0}, 1000)
    observer.logged({"train_loss": 2.5}, 1001)
    observer.logged({"valid_loss": 2.75, "valid_perplexity": 15.64, "seconds": 19.0}, 1100)
    observer.sampled([("", "the [red] king\nsees")], 1000)
    observer.stage_finished("fit", "valid perplexity 12.18 [best]", 61)
    observer.noted("a [note]")
    scores = {"m[lr=1]": {"valid": SCORE}}
    artifacts = {"best": "checkpoints/best.pt", "tensorboard": "tensorboard"}
    closing_table(console, scores, artifacts, Path("outputs/[x] y"), "m[lr=1] is better than [b].")
    observer.close()
    text = Text.from_ansi(output.getvalue()).plain
    for part in ("[made]", "1,234", "[note]", "[best]", "the [red] king / sees", "1 min 01 s", "1,234,567", "90.02",
                 "123.46", "1.6543", "1.25%", "m[lr=1]  ", "m[lr=1] is better than [b].", "run folder: outputs/[x] y",
                 "tl-generate 'outputs/[x] y'", "tl-analyze 'outputs/[x] y'",
                 "tensorboard --logdir 'outputs/[x] y/tensorboard'"):  # fmt: skip
        assert part in text, text
    rows = [line for line in text.splitlines() if line.strip().startswith(("step", "1,000", "1,100"))]
    assert len(rows) == 3
    assert rows[1].split() == ["1,000", "2.7500", "2.5000", "12.18", "4,321", "9.0", "s", "★"]
    assert rows[2].split() == ["1,100", "2.5000", "2.7500", "15.64", "4,321", "19.0", "s"]
    assert "1,001" not in text
    assert ("\x1b[" in output.getvalue()) is live


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_header_keeps_names_and_values_together(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    facts = {"corpus": {"documents": 249, "train tokens": 2010247, "valid tokens": 107542, "test tokens": 122993}}
    TerminalObserver(console).header(facts)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for pair in ("documents 249", "train tokens 2,010,247", "valid tokens 107,542", "test tokens 122,993"):
        assert any(pair in line for line in lines)


def test_the_columns_of_the_fit_table_are_aligned() -> None:
    some = {"train_loss": 9.97, "valid_loss": 6.5, "valid_perplexity": 665.1, "tokens_per_second": 9.0, "seconds": 1.0}
    other = {"valid_loss": 45.25, "valid_perplexity": 4.5e19, "tokens_per_second": 123456.0, "seconds": 86400.0}
    assert len(fit_row(some, 5)) == len(fit_row(other, 100_000)) <= 70


def test_the_facts_that_matter_fit_beside_the_bar_at_80_columns() -> None:
    text = progress_text(FACTS, 53)
    assert text.startswith("best valid 12,346  1,235k tokens/s  59 min 01 s left")
    assert len(text) <= 53
    assert progress_text(FACTS).endswith("lr 0.00123")
    # Nothing is cut in its middle.
    for width in range(20, 120):
        kept = progress_text(FACTS, width)
        assert progress_text(FACTS).startswith(kept)
        assert progress_text(FACTS)[len(kept) : len(kept) + 2] in ("  ", "")


def test_the_score_table_fits_80_columns() -> None:
    astronomical = Score(123_456, 20_000, 120_000, 0.25, 12.0, 162754.8, 3.1e27, 2.1)
    console = Console(file=io.StringIO(), width=80)
    console.print(score_table({"transformer + 5-gram": {"valid": SCORE, "test": astronomical}}))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("3.1e+27" in line and "25.00%" in line for line in lines)
    assert not any("…" in line for line in lines), "the name wraps, and no number is cut"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_output_in_any_encoding(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    tolerate_encoding(stream)
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    observer = TerminalObserver(console)
    observer.header({"corpus": {"name": "Größe 党 \udcff"}})
    observer.stage_started("fit", "…")
    observer.progressed("fit", 0.5, {"train_loss": 3.2})
    observer.logged({"valid_loss": 2.5, "valid_perplexity": 12.18, "seconds": 9.0}, 1000)
    observer.stage_finished("fit", "loss 2 → 1", 3)
    stream.flush()
    text = raw.getvalue().decode(encoding)
    assert "12.18" in text
    assert ("loss 2 -> 1" in text) is (encoding != "utf-8")
    assert ("ok fit" in text) is (encoding != "utf-8")
