"""Jinja templates: pages as HTML, with everything inserted escaped."""

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined


@cache
def _environment() -> Environment:
    # Read through importlib.resources: a package may be imported from a zip file.
    folder = files("torch_linguist.report") / "templates"
    sources = {entry.name: entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.is_file()}
    return Environment(
        loader=DictLoader(sources),
        # Only Markdown templates do their own escaping.
        autoescape=lambda name: not (name or "").endswith(".md"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **context: Any) -> str:
    """Render a template of `report/templates`.

    Args:
        template: file name. HTML is escaped automatically; a `.md` template has to escape what it inserts.
        **context: variables of the template. A missing variable raises `jinja2.UndefinedError`.
    """
    return _environment().get_template(template).render(**context)
