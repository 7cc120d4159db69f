"""Plots come from the CSV beside them, whole, also where a table is short or a point diverged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from torch_linguist.report.plots import plot_curves, plot_grid, plot_lr_finder, plot_overfit

TABLES = {
    "overfit": "step,loss\n1,4.0\n2,1.0\n3,0.05\n",
    "finder": "step,lr,loss,smoothed\n"
    + "".join(f"{i},{10 ** (i / 4 - 5)},{5 - i / 9},{5 - i / 10}\n" for i in range(20)),
    "trials": "lr,train_loss,valid_loss,steps,seconds,status\n0.01,3,3.1,5,1,finished\n1.0,9,inf,2,1,diverged\n",
    "grid": "point,lr,weight_decay,steps,train_loss,valid_loss,valid_perplexity,seconds,status\n"
    "0,0.01,0.0,5,3,3.1,22,1,finished\n1,0.01,0.1,5,3,3.0,20,1,finished\n"
    "2,0.03,0.0,5,3,2.9,18,1,finished\n3,0.03,0.1,2,9,inf,inf,1,diverged\n",
    "curves": "step,epoch,tokens,seconds,lr,train_loss,train_perplexity,gradient_norm,tokens_per_second,"
    "valid_loss,valid_perplexity\n10,0.1,320,1.0,0.01,4.0,54.6,0.5,1000,,\n"
    "20,0.2,640,2.0,0.005,3.0,20.1,0.4,1000,2.9,18.2\n30,0.3,960,3.0,0.001,,,,,2.8,16.4\n",
}


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], Path]:
    def write(name: str, lines: int | None = None) -> Path:
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(TABLES[name].splitlines()[:lines]) + "\n")
        return path

    return write


def assert_whole(path: Path) -> None:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content.endswith(b"IEND\xaeB`\x82")
    assert len(content) > 5000
    assert not [other for other in path.parent.iterdir() if other.name.startswith(".")]


def test_overfit(table: Callable[..., Path], tmp_path: Path) -> None:
    plot_overfit(table("overfit"), tmp_path / "p.png", 0.1)
    assert_whole(tmp_path / "p.png")


@pytest.mark.parametrize("lines", [None, 3])
@pytest.mark.parametrize("suggestion", [None, 0.01])
@pytest.mark.parametrize("trials", [True, False])
def test_lr_finder(
    lines: int | None, suggestion: float | None, trials: bool, table: Callable[..., Path], tmp_path: Path
) -> None:
    plot_lr_finder(table("finder", lines), tmp_path / "p.png", suggestion, 0.02, table("trials") if trials else None)
    assert_whole(tmp_path / "p.png")


def test_lr_finder_without_a_single_point(table: Callable[..., Path], tmp_path: Path) -> None:
    plot_lr_finder(table("finder", 1), tmp_path / "p.png", None, 0.003, None)
    assert_whole(tmp_path / "p.png")


@pytest.mark.parametrize("lines", [None, 2])
def test_grid(lines: int | None, table: Callable[..., Path], tmp_path: Path) -> None:
    plot_grid(table("grid", lines), tmp_path / "p.png")
    assert_whole(tmp_path / "p.png")


def test_grid_of_diverged_points_alone(table: Callable[..., Path], tmp_path: Path) -> None:
    path = table("grid")
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], rows[4]]) + "\n")
    plot_grid(path, tmp_path / "p.png")
    assert_whole(tmp_path / "p.png")


@pytest.mark.parametrize("lines", [None, 2, 3])
def test_curves(lines: int | None, table: Callable[..., Path], tmp_path: Path) -> None:
    plot_curves(table("curves", lines), tmp_path / "p.png")
    assert_whole(tmp_path / "p.png")


def test_curves_of_a_training_that_was_validated_alone(table: Callable[..., Path], tmp_path: Path) -> None:
    path = table("curves")
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], rows[3]]) + "\n")
    plot_curves(path, tmp_path / "p.png")
    assert_whole(tmp_path / "p.png")
