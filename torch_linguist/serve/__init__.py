"""Completions over HTTP: batching, kept prefixes, OpenAI's protocol and a page. Needs the extra `serve`."""

from torch_linguist.serve.batch_engine import Engine
from torch_linguist.serve.limits import Limits
from torch_linguist.serve.served_model import ServedModel, served_models

__all__ = ["Engine", "Limits", "ServedModel", "served_models"]
