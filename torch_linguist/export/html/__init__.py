"""A trained model in one HTML file: the weights packed, the page around them, the code that runs them."""

from torch_linguist.export.html.page import PageModel, write_html

__all__ = ["PageModel", "write_html"]
