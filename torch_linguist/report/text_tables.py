"""Tables of `tl-score` and `tl-generate` for the terminal."""

from rich.table import Table

from torch_linguist.evaluation.texts.pair_evaluation import PairReport
from torch_linguist.generation import Continuation
from torch_linguist.report.terminal import plain_table


def pair_table(report: PairReport) -> Table:
    """Return the accuracy of each model on each group of minimal pairs as a table."""
    columns = [name for label in report.accuracies for name in (label, "95% interval")]
    table = plain_table(["group"], [*columns, "ties", "unknown", "pairs"])
    for rows in zip(*report.accuracies.values(), strict=True):
        cells = [cell for one in rows for cell in (f"{one.accuracy:.1%}", f"{one.low:.1%}–{one.high:.1%}")]
        counts = ["/".join(str(getattr(one, name)) for one in rows) for name in ("ties", "unknown")]
        table.add_row(rows[0].group, *cells, *counts, str(rows[0].pairs))
    return table


def choice_table(continuation: Continuation) -> Table:
    """Return the tokens of a continuation as a table, with their probabilities and the most probable tokens."""
    table = plain_table(["token"], ["probability"])
    table.add_column("most probable")
    for choice in continuation.choices:
        others = "  ".join(f"{visible_token(token)} {share:.3f}" for token, share in choice.alternatives)
        table.add_row(visible_token(choice.token), f"{choice.probability:.4f}", others)
    return table


def visible_token(token: str) -> str:
    """Return a token with visible blanks and control characters."""
    plain = token.replace(" ", "␣")
    return plain if plain.isprintable() else repr(plain)[1:-1]
