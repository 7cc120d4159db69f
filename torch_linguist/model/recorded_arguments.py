"""The arguments of a constructor call, kept on the object: a checkpoint builds the model from them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def recording(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor so that the arguments of the outermost call are kept for the checkpoint."""

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        if not hasattr(self, "arguments"):
            bound = inspect.signature(init).bind(self, *args, **kwargs)
            bound.apply_defaults()
            recorded = dict(bound.arguments)
            recorded.pop("self")
            object.__setattr__(self, "arguments", recorded)
        init(self, *args, **kwargs)

    return wrapper
