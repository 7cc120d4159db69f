"""The page of `tl-export --html`, with probabilities from the server in place of weights."""

from collections.abc import Sequence

from torch_linguist.export.html import PageModel, render_html
from torch_linguist.serve.served_model import ServedModel


def served_page(models: Sequence[ServedModel], prompt: str = "") -> str:
    """Return the HTML page of `/`, which begins with a prompt."""
    pages = [PageModel(one.name, one.model, one.tokenizer, one.summary, one.curves) for one in models]
    return render_html(pages, prompt, served=True)
