"""Sphinx configuration of the documentation: `make docs`, or `make docs-quick` with smaller sizes.

Environment variables:
    TORCH_LINGUIST_GUIDE: `quick` makes the chapters use smaller sizes.
    GUIDE_EXECUTION: `force` (default) runs every chapter; `cache` runs those whose code or package has changed; `off`.
"""

import hashlib
import os
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator
from sphinx_exercise.nodes import solution_node

import torch_linguist

ROOT = Path(__file__).resolve().parents[1]


def fingerprint() -> str:
    """A hash of the package and its configurations: cached results of another version are not shown."""
    found = hashlib.sha256(os.environ.get("TORCH_LINGUIST_GUIDE", "").encode())
    files = [*(ROOT / "torch_linguist").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml"), ROOT / "pyproject.toml"]
    for path in sorted(files):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


project = "torch-linguist"
author = copyright = "the torch-linguist authors"
version = release = torch_linguist.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_exercise",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "records"]
highlight_language = "none"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = os.environ.get("GUIDE_EXECUTION", "force")
nb_execution_cache_path = str(ROOT / "docs" / "_build" / f"jupyter-cache-{fingerprint()}")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
os.environ.setdefault("OMP_NUM_THREADS", "2")  # Inherited by the kernels: the same sums on every machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # On a busy machine, threads that spin take ten times as long.

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = f"torch-linguist {version}"
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # The sidebar has the search.
    "show_toc_level": 2,
}
html_context = {"default_mode": "auto"}  # The theme logs an error without it.
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"


def open_solution(translator: HTML5Translator, node: nodes.Element) -> None:
    """Begin a solution that is folded: `details` needs no script and can be opened with the keyboard."""
    title = node[0]
    node.remove(title)
    translator.body.append(translator.starttag(node, "details", CLASS="admonition"))
    translator.body.append(f'<summary class="admonition-title">{translator.encode(title.astext())}</summary>\n')


def close_solution(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append("</details>\n")


def parsable_signature(  # The arguments are Sphinx's.
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write `...` for the default that a factory makes: Sphinx cannot read `<factory>`, and would shorten no type."""
    return (signature and signature.replace("<factory>", "...")), returns


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", parsable_signature)
    app.add_node(solution_node, override=True, html=(open_solution, close_solution))
