"""The plots of a run, each from the CSV beside it, so that they can be drawn again from the folder alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from torch_linguist.errors import LinguistError

CURVES = ["step", "lr", "train_loss", "train_perplexity", "gradient_norm", "valid_loss", "valid_perplexity"]

TRAIN, VALID, ACCENT, MUTED = "#4c72b0", "#c44e52", "#2a7f62", "#b8bcc4"

STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "font.size": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure in the house's style, written to `path` as a whole at the end of the block; needs no display."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
        try:
            yield figure
            figure.savefig(temporary)
        except (ValueError, OverflowError) as error:
            if isinstance(error, LinguistError):
                raise
            raise LinguistError(f"{path}: cannot be drawn ({error}); the table it is drawn from is damaged") from error
        temporary.replace(path)


def _read(table: Path, numbers: Sequence[str], texts: Sequence[str] = ()) -> pd.DataFrame:
    """A table of a run, some of whose columns must be there.

    Raises:
        LinguistError: a column is missing or holds something else.
    """
    try:
        frame = pd.read_csv(table, dtype=dict.fromkeys(numbers, "float64") | dict.fromkeys(texts, "str"))
        return frame.astype(dict.fromkeys(numbers, "float64") | dict.fromkeys(texts, "str"))
    except (ValueError, KeyError, OverflowError) as error:  # pandas' own errors are of these kinds.
        reason = " ".join(str(error).split())[:120]
        raise LinguistError(
            f"{table}: is damaged and cannot be drawn ({reason}); delete it, or make it anew"
        ) from error


def plot_overfit(table: Path, path: Path, target: float) -> None:
    """Loss against updates of the stage `overfit`, on a logarithmic axis, with the target.

    Args:
        table: `overfit.csv`.
        path: of the PNG.
        target: the loss at which the stage ends.
    """
    frame = _read(table, ["step", "loss"])
    with _figure(path, 6.4, 4) as figure:
        axes = figure.subplots()
        axes.plot(frame["step"], frame["loss"], color=TRAIN, label="loss")
        axes.axhline(target, color=ACCENT, linestyle="--", linewidth=1, label=f"target {target:g}")
        axes.set(yscale="log", xlabel="update", ylabel="loss (nats per token)", title="Learning a few batches by heart")
        axes.legend()


def plot_lr_finder(table: Path, path: Path, suggestion: float | None, chosen: float, trials: Path | None) -> None:
    """The range test, its suggestion, and the trials around it.

    Args:
        table: `lr_finder.csv`.
        path: of the PNG.
        suggestion: of the range test; None where it had none.
        chosen: the learning rate that was taken.
        trials: `lr_trials.csv`; None where no trials ran.
    """
    frame = _read(table, ["lr", "loss", "smoothed"])
    with _figure(path, 7.2, 4.2) as figure:
        axes = figure.subplots()
        lowest = [frame["loss"].min(), frame["smoothed"].min()]
        axes.plot(frame["lr"], frame["loss"], color=MUTED, linewidth=1, label="training loss")
        axes.plot(frame["lr"], frame["smoothed"], color=TRAIN, linewidth=2, label="smoothed")
        if trials is not None and trials.is_file():
            tried = _read(trials, ["lr", "valid_loss"], ["status"])
            tried = tried[tried["status"] == "finished"]
            lowest.append(tried["valid_loss"].min())
            axes.plot(tried["lr"], tried["valid_loss"], "D", color=VALID, label="valid loss of a short trial")
        if suggestion is not None:
            axes.axvline(suggestion, color=ACCENT, linestyle="--", linewidth=1, label=f"suggestion {suggestion:.2g}")
        axes.axvline(chosen, color=VALID, linewidth=1, label=f"chosen {chosen:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss (nats per token)")
        if len(frame):
            top = float(frame["loss"].iloc[: max(5, len(frame) // 4)].max()) * 1.15
            axes.set_ylim(float(np.nanmin(lowest)) * 0.95, top)
        axes.set_title("Learning-rate range test")
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)


def plot_grid(table: Path, path: Path) -> None:
    """Validation loss of each point as a heatmap, the best one framed.

    Args:
        table: `grid.csv`.
        path: of the PNG.
    """
    frame = _read(table, ["lr", "weight_decay", "valid_loss"], ["status"])
    frame.loc[frame["status"] != "finished", "valid_loss"] = np.nan
    statuses = frame.pivot_table(index="weight_decay", columns="lr", values="status", aggfunc="last", dropna=False)
    words = statuses.to_numpy()
    grid = frame.pivot_table(index="weight_decay", columns="lr", values="valid_loss", dropna=False)
    values = grid.to_numpy()
    with _figure(path, 2.6 + 1.5 * values.shape[1], 1.9 + 0.6 * values.shape[0]) as figure:
        axes = figure.subplots()
        image = axes.imshow(np.ma.masked_invalid(values), cmap="viridis_r", aspect="auto")
        axes.grid(visible=False)
        axes.set_xticks(range(values.shape[1]), [f"{lr:.2g}" for lr in grid.columns])
        axes.set_yticks(range(values.shape[0]), [f"{decay:g}" for decay in grid.index])
        axes.set(xlabel="learning rate", ylabel="weight decay", title="Valid loss after a short training")
        finite = values[np.isfinite(values)]
        middle = (finite.min() + finite.max()) / 2 if len(finite) else 0.0
        for (row, column), value in np.ndenumerate(values):
            # A point that was stopped early has a loss, but not one to compare.
            text = f"{value:.4f}" if np.isfinite(value) else str(words[row, column])
            shade = "white" if np.isfinite(value) and value > middle else "black"
            axes.text(column, row, text, ha="center", va="center", color=shade)
        if len(finite):
            best_row, best_column = np.unravel_index(np.nanargmin(values), values.shape)
            frame_of_best = mpl.patches.Rectangle(
                (float(best_column) - 0.47, float(best_row) - 0.45), 0.94, 0.9, fill=False, color=VALID, linewidth=2.5
            )
            axes.add_patch(frame_of_best)
            figure.colorbar(image, ax=axes, label="nats per token")


def plot_curves(table: Path, path: Path) -> None:
    """Loss, perplexity and learning rate of the long training.

    Args:
        table: `metrics.csv`.
        path: of the PNG.
    """
    frame = _read(table, CURVES)
    with _figure(path, 9.6, 6.4) as figure:
        loss, perplexity, rate, norm = figure.subplots(2, 2, sharex=True).flat
        _train_and_valid(loss, frame, "loss")
        loss.set(ylabel="loss (nats per token)", title="Loss")
        _train_and_valid(perplexity, frame, "perplexity")
        perplexity.set(yscale="log", ylabel="perplexity", title="Perplexity")
        _plain_numbers(perplexity)
        rate.plot(frame["step"], frame["lr"], color=ACCENT)
        rate.set(xlabel="update", ylabel="learning rate", title="Learning rate")
        norms = frame.dropna(subset=["gradient_norm"])
        norm.plot(norms["step"], norms["gradient_norm"], color=TRAIN, linewidth=1)
        norm.set(xlabel="update", ylabel="norm before clipping", title="Gradient norm", yscale="log")
        _plain_numbers(norm)


def plot_profile(table: Path, path: Path) -> None:
    """The operations that take the most time and memory of an update, as bars.

    Args:
        table: `profile.csv`.
        path: of the PNG.
    """
    frame = read_profile(table)
    slowest, largest = slowest_operations(frame, 12), largest_operations(frame, 12)
    with _figure(path, 9.6, 6.8) as figure:
        time, memory = figure.subplots(2, 1)
        _bars(time, slowest["operation"], 100 * slowest["share"], [f"{ms:.3g} ms" for ms in slowest["self_ms"]], TRAIN)
        where = slowest["device"].iloc[0] if len(slowest) else "cpu"
        time.set(xlabel=f"% of the time of an update ({where})", title="Where the time goes")
        labels = [f"{size:.3g} MiB" for size in largest["memory_mib"]]
        _bars(memory, largest["operation"], largest["memory_mib"], labels, ACCENT)
        memory.set(xlabel="MiB taken less given back, an update", title="Where the memory goes")


def read_profile(table: Path) -> pd.DataFrame:
    """`profile.csv`, a row an operation.

    Raises:
        LinguistError: a column is missing or holds something else.
    """
    return _read(table, ["calls", "self_ms", "total_ms", "share", "memory_mib"], ["operation", "device"])


def slowest_operations(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows of a profile: those of the device that trains, by their own time."""
    on_gpu = frame[frame["device"] != "cpu"]
    return (on_gpu if len(on_gpu) else frame).nlargest(count, "self_ms")


def largest_operations(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows of a profile that take memory, the largest first."""
    return frame[frame["memory_mib"] > 0].nlargest(count, "memory_mib")


def _bars(axes: Axes, names: pd.Series, lengths: pd.Series, labels: Sequence[str], color: str) -> None:
    """Horizontal bars, the first at the top. Long names lose their middle: their ends tell them apart."""
    shown = [name if len(name) <= 44 else f"{name[:24]}…{name[-19:]}" for name in names]
    places = range(len(shown))
    bars = axes.barh(places, lengths, color=color)
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_yticks(places, shown, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")


def _train_and_valid(axes: Axes, frame: pd.DataFrame, quantity: str) -> None:
    train = frame.dropna(subset=[f"train_{quantity}"])
    valid = frame.dropna(subset=[f"valid_{quantity}"])
    axes.plot(train["step"], train[f"train_{quantity}"], color=TRAIN, linewidth=1, alpha=0.8, label="train")
    axes.plot(valid["step"], valid[f"valid_{quantity}"], "o-", color=VALID, markersize=4, label="valid")
    if quantity == "loss" and len(train):
        # The first few updates start at ln(V) and would flatten everything after them.
        settled = train[f"train_{quantity}"].iloc[len(train) // 20 :]
        low, high = settled.min(), settled.max()
        if len(valid):
            low, high = min(low, valid["valid_loss"].min()), max(high, valid["valid_loss"].max())
        margin = 0.05 * (high - low) + 1e-3
        axes.set_ylim(low - margin, high + margin)
    axes.legend()


def _plain_numbers(axes: Axes) -> None:
    """Ticks of a logarithmic axis as 50, 100, 200 rather than powers of ten."""
    low, high = axes.get_ylim()
    steps = [digit * 10.0**power for power in range(-8, 9) for digit in (1, 2, 5)]
    inside = [step for step in steps if low <= step <= high]
    while len(inside) > 8:
        inside = inside[::2]
    if len(inside) >= 2:
        axes.set_yticks(inside)
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
