"""What a person sees of a run: the terminal, the plots, TensorBoard."""

from torch_linguist.report.plots import plot_curves, plot_grid, plot_lr_finder, plot_overfit
from torch_linguist.report.summary import new_summary
from torch_linguist.report.tensorboard import TensorBoardObserver
from torch_linguist.report.terminal import TerminalObserver, closing_table, score_table

__all__ = [
    "TensorBoardObserver",
    "TerminalObserver",
    "closing_table",
    "new_summary",
    "plot_curves",
    "plot_grid",
    "plot_lr_finder",
    "plot_overfit",
    "score_table",
]
