"""The filters of sampling, each against a slow reference on Python's floats."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.errors import LinguistError
from torch_linguist.generation import Sampling, draw, filtered_logits

LOGITS = st.lists(st.floats(-12, 12), min_size=1, max_size=12)


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def kept(logits: list[float], sampling: Sampling) -> set[int]:
    """The tokens that the filters leave."""
    found = filtered_logits(torch.tensor([logits], dtype=torch.float64), sampling)[0]
    return {index for index, logit in enumerate(found.tolist()) if logit > -math.inf}


def fewest(ranked: list[int], probabilities: list[float], mass: float) -> set[int]:
    """Tokens in their order until they have the mass."""
    taken: set[int] = set()
    total = 0.0
    for index in ranked:
        if taken and total >= mass:
            break
        taken.add(index)
        total += probabilities[index]
    return taken


def apart(values: list[float], gap: float = 1e-6) -> bool:
    """Whether no two values are so near that rounding could swap them."""
    ordered = sorted(values)
    return all(high - low > gap for low, high in itertools.pairwise(ordered))


@settings(deadline=None)
@given(logits=LOGITS, k=st.integers(1, 14))
def test_top_k(logits: list[float], k: int) -> None:
    smallest = sorted(logits, reverse=True)[: min(k, len(logits))][-1]
    assert kept(logits, Sampling(top_k=k)) == {index for index, logit in enumerate(logits) if logit >= smallest}


@settings(deadline=None)
@given(logits=LOGITS, mass=st.floats(0.01, 0.99))
def test_top_p(logits: list[float], mass: float) -> None:
    probabilities = softmax(logits)
    ranked = sorted(range(len(logits)), key=lambda index: -probabilities[index])
    running = [sum(probabilities[index] for index in ranked[:count]) for count in range(1, len(ranked) + 1)]
    if apart(logits) and all(abs(total - mass) > 1e-9 for total in running):
        assert kept(logits, Sampling(top_p=mass)) == fewest(ranked, probabilities, mass)


@settings(deadline=None)
@given(logits=LOGITS, share=st.floats(0.01, 1.0))
def test_min_p(logits: list[float], share: float) -> None:
    probabilities = softmax(logits)
    if all(abs(probability / max(probabilities) - share) > 1e-9 for probability in probabilities):
        expected = {index for index, one in enumerate(probabilities) if one >= share * max(probabilities)}
        assert kept(logits, Sampling(min_p=share)) == expected


@settings(deadline=None)
@given(logits=LOGITS, mass=st.floats(0.01, 0.99))
def test_typical(logits: list[float], mass: float) -> None:
    probabilities = softmax(logits)
    entropy = -sum(one * math.log(one) for one in probabilities)
    distance = [abs(-math.log(one) - entropy) for one in probabilities]
    ranked = sorted(range(len(logits)), key=distance.__getitem__)
    running = [sum(probabilities[index] for index in ranked[:count]) for count in range(1, len(ranked) + 1)]
    if apart(distance) and all(abs(total - mass) > 1e-9 for total in running):
        assert kept(logits, Sampling(typical=mass)) == fewest(ranked, probabilities, mass)


@settings(deadline=None)
@given(logits=LOGITS, penalty=st.floats(0.5, 3), temperature=st.floats(0.1, 3), data=st.data())
def test_penalty_and_temperature(logits: list[float], penalty: float, temperature: float, data: st.DataObject) -> None:
    seen = data.draw(st.lists(st.integers(0, len(logits) - 1), min_size=1, max_size=5))
    expected = [
        logit if index not in seen else logit / penalty if logit > 0 else logit * penalty
        for index, logit in enumerate(logits)
    ]
    sampling = Sampling(temperature=temperature, repetition_penalty=penalty)
    found = torch.softmax(
        filtered_logits(torch.tensor([logits], dtype=torch.float64), sampling, torch.tensor([seen])), -1
    )
    wanted = torch.tensor(softmax([logit / temperature for logit in expected]), dtype=torch.float64)
    torch.testing.assert_close(found[0], wanted, atol=1e-9, rtol=1e-7)


def test_the_penalty_is_that_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    generator = torch.Generator().manual_seed(0)
    logits, seen = torch.randn(4, 30, generator=generator) * 5, torch.randint(30, (4, 9), generator=generator)
    expected = transformers.RepetitionPenaltyLogitsProcessor(penalty=1.7)(seen, logits.clone())
    found = filtered_logits(logits, Sampling(repetition_penalty=1.7), seen)
    torch.testing.assert_close(found, expected - expected.amax(dim=-1, keepdim=True))


def test_filters_work_on_what_is_left() -> None:
    logits = [math.log(weight) for weight in (0.4, 0.3, 0.2, 0.1)]
    # Of the two most probable, renormalized to 4/7 and 3/7, the first alone has half.
    assert kept(logits, Sampling(top_k=2, top_p=0.5)) == {0}
    assert kept(logits, Sampling(top_k=2, top_p=0.6)) == {0, 1}
    assert kept(logits, Sampling(top_p=0.9, typical=0.01)) == {1}


def test_greedy_takes_the_most_probable() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 2.9]])
    assert draw(logits, Sampling(greedy=True), None).tolist() == [[1], [0]]
    penalized = draw(logits, Sampling(greedy=True, repetition_penalty=4.0), None, torch.tensor([[1], [1]]))
    assert penalized.tolist() == [[2], [0]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0), ("temperature", math.nan), ("temperature", math.inf), ("top_k", -1), ("top_p", 0.0),
        ("top_p", 1.1), ("top_p", math.nan), ("min_p", -0.1), ("min_p", 1.5), ("typical", 0.0), ("typical", 2.0),
        ("repetition_penalty", 0.0), ("repetition_penalty", math.inf),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_named(name: str, value: float) -> None:
    with pytest.raises(LinguistError, match=f"^{name}={value}: must"):
        Sampling(**{name: value})  # type: ignore[arg-type]
