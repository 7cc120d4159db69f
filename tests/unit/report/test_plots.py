"""Plots show the data of the CSV beside them, also where a table is short or a point diverged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from torch_linguist.errors import LinguistError
from torch_linguist.report.plots import plot_curves, plot_grid, plot_lr_finder, plot_overfit

TABLES = {
    "overfit": "step,loss\n1,4.0\n2,1.0\n3,0.05\n",
    "finder": "step,lr,loss,smoothed\n"
    + "".join(f"{i},{10 ** (i / 4 - 5)},{5 - i / 9},{5 - i / 10}\n" for i in range(20)),
    "trials": "lr,train_loss,valid_loss,steps,seconds,status\n0.03,3,3.2,5,1,finished\n0.01,3,3.1,5,1,finished\n"
    "1.0,9,inf,2,1,diverged\n",
    "grid": "point,lr,weight_decay,steps,train_loss,valid_loss,valid_perplexity,seconds,status\n"
    "0,0.01,0.0,5,3,3.1,22,1,finished\n1,0.01,0.1,5,3,3.0,20,1,finished\n"
    "2,0.03,0.0,5,3,2.9,18,1,finished\n3,0.03,0.1,2,9,inf,inf,1,diverged\n",
    "curves": "step,epoch,tokens,seconds,lr,train_loss,train_perplexity,gradient_norm,tokens_per_second,"
    "valid_loss,valid_perplexity\n10,0.1,320,1.0,0.01,4.0,54.6,0.5,1000,,\n"
    "20,0.2,640,2.0,0.005,3.0,20.1,0.4,1000,2.9,18.2\n30,0.3,960,3.0,0.001,,,,,2.8,16.4\n",
}


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, lines: int | None = None) -> Path:
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(TABLES[name].splitlines()[:lines]) + "\n")
        return path

    return write


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Figure]:
    """The one figure that was saved, after a check that it was written whole."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)

    def only() -> Figure:
        (figure,) = figures
        content = (tmp_path / "p.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content.endswith(b"IEND\xaeB`\x82")
        assert not [other for other in tmp_path.iterdir() if other.name.startswith(".")]
        return figure

    return only


def line(axes: Axes, label: str) -> list[tuple[float, float]]:
    (found,) = [one for one in axes.get_lines() if str(one.get_label()).startswith(label)]
    return points(found)


def points(line: Line2D) -> list[tuple[float, float]]:
    xs, ys = (np.asarray(data, np.float64).tolist() for data in (line.get_xdata(), line.get_ydata()))
    return list(zip(xs, ys, strict=True))


def tick_labels(figure: Figure) -> str:
    figure.canvas.draw()
    return " ".join(
        label.get_text() for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()
    )


def test_overfit(table: Callable[..., Path], tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    plot_overfit(table("overfit"), tmp_path / "p.png", 0.1)
    (axes,) = drawn().axes
    assert line(axes, "loss") == [(1, 4), (2, 1), (3, 0.05)]
    assert {y for _, y in line(axes, "target 0.1")} == {0.1}
    assert "$" not in tick_labels(drawn())


def test_lr_finder_has_a_panel_for_the_trials(
    table: Callable[..., Path], tmp_path: Path, drawn: Callable[[], Figure]
) -> None:
    plot_lr_finder(table("finder"), tmp_path / "p.png", 0.01, 0.02, table("trials"))
    test, trials = drawn().axes
    assert len(line(test, "training loss")) == len(line(test, "smoothed")) == 20
    assert {x for x, _ in line(test, "suggestion")} == {0.01}
    assert {x for x, _ in line(test, "chosen")} == {0.02}
    # The trial that diverged has no point; the others are in the order of their rates.
    assert line(trials, "valid loss") == [(0.01, 3.1), (0.03, 3.2)]
    assert "$" not in tick_labels(drawn())


@pytest.mark.parametrize("lines", [1, 3])
def test_lr_finder_of_a_short_test(
    lines: int, table: Callable[..., Path], tmp_path: Path, drawn: Callable[[], Figure]
) -> None:
    plot_lr_finder(table("finder", lines), tmp_path / "p.png", None, 0.003, None)
    (axes,) = drawn().axes
    assert len(line(axes, "training loss")) == lines - 1
    assert not [one for one in axes.get_lines() if str(one.get_label()).startswith("suggestion")]


def test_grid(table: Callable[..., Path], tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    plot_grid(table("grid"), tmp_path / "p.png")
    axes = drawn().axes[0]
    values: np.ndarray = np.ma.filled(np.ma.asarray(axes.images[0].get_array()), np.nan)
    np.testing.assert_array_equal(values, [[3.1, 2.9], [3.0, np.nan]])
    assert [text.get_text() for text in axes.texts] == ["3.1000", "2.9000", "3.0000", "diverged"]
    (frame,) = axes.patches
    assert frame.get_window_extent().contains(*axes.transData.transform((1, 0)))


def test_a_stopped_point_shows_no_loss(table: Callable[..., Path], tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    path = table("grid")
    path.write_text(path.read_text().replace("2.9,18,1,finished", "2.9,18,1,stopped"))
    plot_grid(path, tmp_path / "p.png")
    assert [text.get_text() for text in drawn().axes[0].texts] == ["3.1000", "stopped", "3.0000", "diverged"]


def test_grid_of_diverged_points_alone(table: Callable[..., Path], tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    path = table("grid")
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], rows[4]]) + "\n")
    plot_grid(path, tmp_path / "p.png")
    assert [text.get_text() for text in drawn().axes[0].texts] == ["diverged"]
    assert not drawn().axes[0].patches


def test_curves(table: Callable[..., Path], tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    plot_curves(table("curves"), tmp_path / "p.png", ("5-gram", 2.85), 0.2)
    loss, rate, norm = drawn().axes[:3]
    assert line(loss, "train (smoothed, with dropout 0.2)") == [(10, 3.5), (20, 3.5)]
    assert line(loss, "valid") == [(20, 2.9), (30, 2.8)]
    assert line(loss, "best: perplexity 16.44 at update 30") == [(30, 2.8)]
    assert {y for _, y in line(loss, "5-gram: perplexity 17.29")} == {2.85}
    assert [y for _, y in points(rate.get_lines()[0])] == [0.01, 0.005, 0.001]
    assert [y for _, y in points(norm.get_lines()[0])] == [0.5, 0.4]
    assert "$" not in tick_labels(drawn())


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_curves_of_a_short_training(
    lines: int, table: Callable[..., Path], tmp_path: Path, drawn: Callable[[], Figure]
) -> None:
    plot_curves(table("curves", lines), tmp_path / "p.png")
    assert len(points(drawn().axes[0].get_lines()[0])) == lines - 1


def test_curves_of_a_training_that_was_only_validated(
    table: Callable[..., Path], tmp_path: Path, drawn: Callable[[], Figure]
) -> None:
    path = table("curves")
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], rows[3]]) + "\n")
    plot_curves(path, tmp_path / "p.png")
    assert line(drawn().axes[0], "valid") == [(30, 2.8)]


def test_a_damaged_table_is_named(table: Callable[..., Path], tmp_path: Path) -> None:
    path = table("curves")
    path.write_text("step,lr\n1,x\n")
    with pytest.raises(LinguistError, match=r"curves\.csv: is damaged"):
        plot_curves(path, tmp_path / "p.png")
