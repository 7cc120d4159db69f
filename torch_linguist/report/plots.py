"""Plots of a run, drawn from the CSV files in its folder. They can be redrawn from the folder alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torch_linguist.errors import LinguistError
from torch_linguist.report.figure_style import ACCENT, MUTED, TRAIN, VALID, log_axis, new_figure

CURVES = ["step", "lr", "train_loss", "gradient_norm", "valid_loss"]

SMOOTHING = 1 / 20
"""Width of the centered moving average of the training loss, as a share of the training."""


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Create a figure as `new_figure` does; values that cannot be drawn raise `LinguistError`."""
    try:
        with new_figure(path, height, width) as figure:
            yield figure
    except (ValueError, OverflowError) as error:
        if isinstance(error, LinguistError):
            raise
        raise LinguistError(f"{path}: cannot be drawn ({error}); the table behind it is damaged") from error


def _read(table: Path, numbers: Sequence[str], texts: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table of a run.

    Raises:
        LinguistError: a column is missing or holds values of another type.
    """
    kinds = dict.fromkeys(numbers, "float64") | dict.fromkeys(texts, "str")
    try:
        return pd.read_csv(table, dtype=kinds).astype(kinds)
    except (ValueError, KeyError, OverflowError) as error:  # pandas' own errors are subclasses of these.
        reason = " ".join(str(error).split())[:120]
        raise LinguistError(f"{table}: is damaged and cannot be drawn ({reason}); delete it and run again") from error


def plot_overfit(table: Path, path: Path, target: float) -> None:
    r"""Plot the loss of the stage `overfit` against its updates, with the target.

    Example:
        >>> _ = Path("overfit.csv").write_text("step,loss\n1,4.0\n2,0.1\n")
        >>> plot_overfit(Path("overfit.csv"), Path("overfit.png"), target=0.1)
        >>> Path("overfit.png").is_file()
        True
    """
    frame = _read(table, ["step", "loss"])
    with _figure(path, 6.4, 4) as figure:
        axes = figure.subplots()
        axes.plot(frame["step"], frame["loss"], color=TRAIN, label="loss")
        axes.axhline(target, color=ACCENT, linestyle="--", linewidth=1, label=f"target {target:g}")
        axes.set(yscale="log", xlabel="update", ylabel="loss (nats per token)", title="Overfitting a few batches")
        axes.legend()


def plot_lr_finder(table: Path, path: Path, suggestion: float | None, chosen: float, trials: Path | None) -> None:
    r"""Plot the range test with its suggestion and, in a panel of their own, the short trials around it.

    Args:
        table: `lr_finder.csv`.
        path: PNG file to write.
        suggestion: learning rate suggested by the range test; None for none.
        chosen: learning rate chosen in the end.
        trials: `lr_trials.csv`; None where no trials ran.

    Example:
        >>> _ = Path("lr_finder.csv").write_text("lr,loss,smoothed\n0.001,4.0,4.0\n0.01,3.0,3.5\n")
        >>> plot_lr_finder(Path("lr_finder.csv"), Path("lr.png"), suggestion=0.003, chosen=0.01, trials=None)
        >>> Path("lr.png").is_file()
        True
    """
    frame = _read(table, ["lr", "loss", "smoothed"])
    tried = None
    if trials is not None and trials.is_file():
        tried = _read(trials, ["lr", "valid_loss"], ["status"])
        tried = tried[(tried["status"] == "finished") & np.isfinite(tried["valid_loss"])]
    panels = 1 if tried is None or tried.empty else 2
    with _figure(path, 6.4, 1.0 + 3.2 * panels) as figure:
        test, *rest = figure.subplots(panels, 1, squeeze=False).flat
        test.plot(frame["lr"], frame["loss"], color=MUTED, linewidth=1, label="training loss")
        test.plot(frame["lr"], frame["smoothed"], color=TRAIN, linewidth=2, label="smoothed")
        if suggestion is not None:
            test.axvline(suggestion, color=ACCENT, linestyle="--", linewidth=1, label=f"suggestion {suggestion:.2g}")
        test.axvline(chosen, color=VALID, linewidth=1, label=f"chosen {chosen:.2g}")
        test.set(xscale="log", ylabel="loss (nats per token)", title="Range test: learning rate raised at each update")
        if len(frame):
            top = float(frame["loss"].iloc[: max(5, len(frame) // 4)].max())
            low = float(np.nanmin([frame["loss"].min(), frame["smoothed"].min()]))
            margin = 0.1 * (top - low) + 0.01
            test.set_ylim(low - margin, top + margin)
        test.legend()
        for axes in rest:
            assert tried is not None
            own = tried.sort_values("lr")
            axes.plot(own["lr"], own["valid_loss"], "o-", color=VALID, label="valid loss")
            axes.axvline(chosen, color=VALID, linewidth=1)
            log_axis(axes.xaxis, float(own["lr"].min()), float(own["lr"].max()))
            axes.margins(x=0.1)
            axes.set(ylabel="valid loss (nats per token)", title="Short trials around the suggestion")
        (rest[-1] if rest else test).set_xlabel("learning rate")


def plot_grid(table: Path, path: Path) -> None:
    r"""Plot the validation loss of each grid point as a heatmap, the best point framed.

    Example:
        >>> _ = Path("grid.csv").write_text("lr,weight_decay,valid_loss,status\n0.01,0.1,3.5,finished\n")
        >>> plot_grid(Path("grid.csv"), Path("grid.png"))
        >>> Path("grid.png").is_file()
        True
    """
    frame = _read(table, ["lr", "weight_decay", "valid_loss"], ["status"])
    frame.loc[frame["status"] != "finished", "valid_loss"] = np.nan
    statuses = frame.pivot_table(index="weight_decay", columns="lr", values="status", aggfunc="last", dropna=False)
    grid = frame.pivot_table(index="weight_decay", columns="lr", values="valid_loss", dropna=False)
    values = grid.to_numpy()
    with _figure(path, 2.6 + 1.5 * values.shape[1], 1.9 + 0.6 * values.shape[0]) as figure:
        axes = figure.subplots()
        finite = np.isfinite(values)
        # A point that was stopped early has a loss, but not a comparable one.
        texts = np.where(finite, np.vectorize("{:.4f}".format)(values), statuses.to_numpy().astype(str))
        draw_heatmap(axes, values, texts, "nats per token")
        axes.set_xticks(range(values.shape[1]), [f"{lr:.2g}" for lr in grid.columns])
        axes.set_yticks(range(values.shape[0]), [f"{decay:g}" for decay in grid.index])
        axes.set(xlabel="learning rate", ylabel="weight decay", title="Valid loss after a short training")


def draw_heatmap(axes: Axes, values: np.ndarray, texts: np.ndarray, label: str) -> None:
    """Draw numbers as colored cells with a text in each, a color bar, and a frame around the lowest number.

    Args:
        axes: empty axes.
        values: numbers, NaN for an empty cell [rows, columns]. Lower ones are brighter.
        texts: text of each cell [rows, columns].
        label: label of the color bar.

    Example:
        >>> from matplotlib.figure import Figure
        >>> values = np.array([[1.0, 2.0]])
        >>> axes = Figure().subplots()
        >>> draw_heatmap(axes, values, values.astype(str), "nats per token")
        >>> len(axes.patches)  # the frame around the lowest number
        1
    """
    image = axes.imshow(np.ma.masked_invalid(values), cmap="viridis_r", aspect="auto")
    axes.grid(visible=False)
    finite = values[np.isfinite(values)]
    middle = (finite.min() + finite.max()) / 2 if len(finite) else 0.0
    for (row, column), value in np.ndenumerate(values):
        shade = "white" if np.isfinite(value) and value > middle else "black"
        axes.text(column, row, str(texts[row, column]), ha="center", va="center", color=shade, fontsize=9)
    if len(finite):
        assert axes.figure is not None
        axes.figure.colorbar(image, ax=axes, label=label)
        best_row, best_column = np.unravel_index(np.nanargmin(values), values.shape)
        corner = (float(best_column) - 0.47, float(best_row) - 0.45)
        axes.add_patch(mpl.patches.Rectangle(corner, 0.94, 0.9, fill=False, color=VALID, linewidth=2.5))


def plot_curves(
    table: Path, path: Path, baseline: tuple[str, float] | None = None, dropout: float | None = None
) -> None:
    r"""Plot the long training: train and valid loss together, learning rate, and gradient norm.

    Args:
        table: `metrics.csv`.
        path: PNG file to write.
        baseline: name and valid loss in nats per token of a baseline, drawn as a line; None for none.
        dropout: dropout probability, named in the legend because the train loss is measured with it; None or 0 for
            none.

    Example:
        >>> lines = ["step,lr,train_loss,gradient_norm,valid_loss", "1,0.01,4.0,1.0,4.1", "2,0.001,3.0,0.9,3.2"]
        >>> _ = Path("metrics.csv").write_text("\n".join(lines))
        >>> plot_curves(Path("metrics.csv"), Path("curves.png"))
        >>> Path("curves.png").is_file()
        True
    """
    frame = _read(table, CURVES)
    with _figure(path, 7.2, 7.2) as figure:
        loss, rate, norm = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
        _draw_losses(loss, frame, baseline, dropout)
        rate.plot(frame["step"], frame["lr"], color=ACCENT)
        rate.set(ylabel="learning rate")
        norms = frame[frame["gradient_norm"] > 0]
        norm.plot(norms["step"], norms["gradient_norm"], color=TRAIN, linewidth=1)
        norm.set(xlabel="update", ylabel="gradient norm\nbefore clipping")
        if len(norms):
            log_axis(norm.yaxis, float(norms["gradient_norm"].min()), float(norms["gradient_norm"].max()))


def _draw_losses(axes: Axes, frame: pd.DataFrame, baseline: tuple[str, float] | None, dropout: float | None) -> None:
    train, valid = frame.dropna(subset=["train_loss"]), frame.dropna(subset=["valid_loss"])
    measured = f", with dropout {dropout:g}" if dropout else ""
    axes.plot(train["step"], train["train_loss"], color=TRAIN, linewidth=0.8, alpha=0.35)
    width = max(3, round(SMOOTHING * len(train)))
    smooth = train["train_loss"].rolling(width, center=True, min_periods=1).mean()
    axes.plot(train["step"], smooth, color=TRAIN, linewidth=1.8, label=f"train (smoothed{measured})")
    axes.plot(valid["step"], valid["valid_loss"], "o-", color=VALID, markersize=4, label="valid")
    shown = [smooth.iloc[len(train) // 20 :], valid["valid_loss"]]
    if len(valid):
        best = valid.iloc[int(valid["valid_loss"].to_numpy().argmin())]
        label = f"best: perplexity {np.exp(best['valid_loss']):.4g} at update {best['step']:,.0f}"
        axes.plot([best["step"]], [best["valid_loss"]], "*", color=VALID, markersize=14, label=label)
    if baseline is not None:
        name, value = baseline
        axes.axhline(
            value, color=ACCENT, linestyle="--", linewidth=1.2, label=f"{name}: perplexity {np.exp(value):.4g}"
        )
        shown.append(pd.Series([value]))
    axes.set(ylabel="loss (nats per token)", title="Training")
    limits = pd.concat(shown)
    if len(limits):
        # The first updates start at ln(V), or at the unigram's loss, and would flatten everything after them.
        margin = 0.06 * (limits.max() - limits.min()) + 1e-3
        axes.set_ylim(limits.min() - margin, limits.max() + margin)
    axes.legend()
    low, high = (np.exp(np.clip(edge, -20, 700)) for edge in axes.get_ylim())
    nice = [digit * 10.0**power for power in range(-2, 16) for digit in (1, 1.5, 2, 3, 4, 5, 7)]
    shown_ticks = [value for value in nice if low <= value <= high]
    second = axes.secondary_yaxis("right")
    second.set_yticks([float(np.log(value)) for value in shown_ticks], [f"{value:,.4g}" for value in shown_ticks])
    second.set_ylabel("perplexity")


def plot_profile(table: Path, path: Path) -> None:
    r"""Plot the operations that take the most time and memory of an update, as bars.

    Example:
        >>> lines = ["operation,device,calls,self_ms,total_ms,share,memory_mib", "addmm,cpu,3,5.0,5.0,1.0,2.0"]
        >>> _ = Path("profile.csv").write_text("\n".join(lines))
        >>> plot_profile(Path("profile.csv"), Path("profile.png"))
        >>> Path("profile.png").is_file()
        True
    """
    frame = read_profile(table)
    slowest, largest = slowest_operations(frame, 12), largest_operations(frame, 12)
    with _figure(path, 9.6, 6.8) as figure:
        time, memory = figure.subplots(2, 1)
        _bars(time, slowest["operation"], 100 * slowest["share"], [f"{ms:.3g} ms" for ms in slowest["self_ms"]], TRAIN)
        where = slowest["device"].iloc[0] if len(slowest) else "cpu"
        time.set(xlabel=f"share of the update's time, in percent ({where})", title="Time per operation")
        labels = [f"{size:.3g} MiB" for size in largest["memory_mib"]]
        _bars(memory, largest["operation"], largest["memory_mib"], labels, ACCENT)
        memory.set(xlabel="MiB allocated minus freed, per update", title="Memory per operation")


def read_profile(table: Path) -> pd.DataFrame:
    r"""Read `profile.csv`, one row per operation.

    Raises:
        LinguistError: a column is missing or holds values of another type.

    Example:
        >>> lines = ["operation,device,calls,self_ms,total_ms,share,memory_mib", "addmm,cpu,3,5.0,5.0,1.0,2.0"]
        >>> _ = Path("profile.csv").write_text("\n".join(lines))
        >>> read_profile(Path("profile.csv"))["operation"].tolist()
        ['addmm']
    """
    return _read(table, ["calls", "self_ms", "total_ms", "share", "memory_mib"], ["operation", "device"])


def slowest_operations(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the rows of a profile with the largest own time, on the device that trains.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"operation": ["addmm", "tanh"], "device": "cpu", "self_ms": [5.0, 1.0]})
        >>> slowest_operations(frame, 1)["operation"].tolist()
        ['addmm']
    """
    on_gpu = frame[frame["device"] != "cpu"]
    return (on_gpu if len(on_gpu) else frame).nlargest(count, "self_ms")


def largest_operations(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the rows of a profile that allocate memory, the largest first.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"operation": ["addmm", "tanh"], "memory_mib": [2.0, 0.0]})
        >>> largest_operations(frame, 2)["operation"].tolist()
        ['addmm']
    """
    return frame[frame["memory_mib"] > 0].nlargest(count, "memory_mib")


def _bars(axes: Axes, names: pd.Series, lengths: pd.Series, labels: Sequence[str], color: str) -> None:
    """Draw horizontal bars, the first on top. Long names lose their middle, since their ends tell them apart."""
    shown = [name if len(name) <= 44 else f"{name[:24]}…{name[-19:]}" for name in names]
    places = range(len(shown))
    bars = axes.barh(places, lengths, color=color)
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_yticks(places, shown, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
