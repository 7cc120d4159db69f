"""Kept states: found by their prefix alone, dropped when memory is short."""

import torch

from torch_linguist.serve.prefix_cache import PrefixCache

STATE_BYTES = 100 * 4


def test_the_least_recently_used_state_goes_first() -> None:
    cache = PrefixCache(3 * (STATE_BYTES + 8))
    states = [[torch.full((100,), float(number))] for number in range(4)]
    for number in range(3):
        cache.put("m", [number], states[number])
    assert cache.get("m", [0]) is states[0]
    cache.put("m", [3], states[3])
    assert [cache.get("m", [number]) is not None for number in range(4)] == [True, False, True, True]
    assert cache.used_bytes == 3 * (STATE_BYTES + 8)


def test_models_and_prefixes_are_distinguished() -> None:
    cache = PrefixCache(1 << 20)
    cache.put("m", [1, 2], [torch.zeros(1)])
    assert cache.get("n", [1, 2]) is None
    assert cache.get("m", [1]) is None
    assert cache.get("m", [1, 2, 3]) is None
