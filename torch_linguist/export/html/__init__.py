"""A trained model in one HTML file: the weights packed, the page around them, the code that runs them."""

from torch_linguist.export.html.page import PageModel, packed_text, render_html, write_html
from torch_linguist.export.html.runs_page import write_runs_page

__all__ = ["PageModel", "packed_text", "render_html", "write_html", "write_runs_page"]
