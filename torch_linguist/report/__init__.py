"""What a person sees of a run: the terminal, TensorBoard, the summary.

The plots are in `torch_linguist.report.plots`: matplotlib and pandas take a second to import, which no training shall
wait for.
"""

from torch_linguist.report.environment import new_summary
from torch_linguist.report.loggers import TensorBoardLogger
from torch_linguist.report.terminal import TerminalObserver, closing_table, score_table

__all__ = [
    "TensorBoardLogger",
    "TerminalObserver",
    "closing_table",
    "new_summary",
    "score_table",
]
