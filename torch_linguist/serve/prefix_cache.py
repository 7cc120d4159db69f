"""States of prefixes that were read before, the least recently used dropped first."""

from array import array
from collections import OrderedDict
from collections.abc import Sequence

from torch_linguist.model import State


class PrefixCache:
    """Keeps the state of a model after a prefix.

    Args:
        largest_bytes: memory for all states together.

    Attributes:
        used_bytes: memory in use.
    """

    def __init__(self, largest_bytes: int) -> None:
        self._largest_bytes = largest_bytes
        self._states: OrderedDict[tuple[str, bytes], State] = OrderedDict()
        self.used_bytes = 0

    def get(self, model: str, prefix: Sequence[int]) -> State | None:
        """Return the state after a prefix of token ids, or None."""
        key = _key(model, prefix)
        state = self._states.get(key)
        if state is not None:
            self._states.move_to_end(key)
        return state

    def put(self, model: str, prefix: Sequence[int], state: State) -> None:
        """Keep the state after a prefix; its tensors must not be modified afterwards."""
        key = _key(model, prefix)
        if key in self._states:
            self._states.move_to_end(key)
            return
        self._states[key] = state
        self.used_bytes += _size(key, state)
        while self.used_bytes > self._largest_bytes:
            self.used_bytes -= _size(*self._states.popitem(last=False))


def _key(model: str, prefix: Sequence[int]) -> tuple[str, bytes]:
    return model, array("q", prefix).tobytes()


def _size(key: tuple[str, bytes], state: State) -> int:
    return len(key[1]) + sum(tensor.untyped_storage().nbytes() for tensor in state)
