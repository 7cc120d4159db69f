"""What a person sees, on a terminal and in a log file."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from torch_linguist.evaluation import Score
from torch_linguist.report import TerminalObserver, closing_table
from torch_linguist.report.terminal import duration, shown

SCORE = Score(1234567, 1000, 9000, 0.0125, 4.5, 90.017, 123.456, 1.6543)


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


@pytest.mark.parametrize("live", [True, False])
def test_a_run_from_header_to_table(live: bool) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=live, width=100, highlight=False, soft_wrap=True)
    observer = TerminalObserver(console)
    observer.header({"corpus": {"name": "[made]", "documents": 3}, "model": {"parameters": 1234}})
    observer.stage_started("fit", "optim.lr=[auto]")
    observer.progressed("fit", 0.5, {"train_loss": 3.2, "seconds_left": 61.0})
    observer.logged({"valid_loss": 2.5, "valid_perplexity": 12.18}, 1000)
    observer.logged({"train_loss": 2.5}, 1001)
    observer.sampled([("", "the [red] king\nsees")], 1000)
    observer.stage_finished("fit", "valid perplexity 12.18 [best]", 61)
    observer.noted("a [note]")
    closing_table(console, {"lstm": {"valid": SCORE}}, {"metrics": "metrics.csv"}, Path("outputs/[x]"))
    observer.close()
    text = output.getvalue()
    for part in ("[made]", "1,234", "[note]", "[best]", "the [red] king / sees", "step 1,000", "12.18", "1 min 01 s",
                 "1,234,567", "90.02", "123.46", "1.6543", "1.25%", "outputs/[x]", "metrics.csv"):  # fmt: skip
        assert part in text
    assert "1,001" not in text
    assert ("\x1b[" in text) is live
