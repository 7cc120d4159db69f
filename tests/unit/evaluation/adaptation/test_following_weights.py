"""Weights of a mixture that follow the text, against Bayes' rule and a plain loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.adaptation.following_weights import FollowingSettings, following_nll, tune_following
from torch_linguist.evaluation.mixture_scoring import fitted_weights, mixed_nll


def made_nll(forms: int, tokens: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).exponential(3.0, (forms, tokens)))


def test_a_share_of_one_is_the_fixed_mixture() -> None:
    nll, weights = made_nll(4, 50, 0), [0.1, 0.2, 0.7, 0.0]
    fixed = following_nll(nll, weights, FollowingSettings())
    np.testing.assert_allclose(fixed, mixed_nll(nll, weights), rtol=1e-12)


def test_without_a_share_it_is_the_mixture_of_whole_texts() -> None:
    # By Bayes' rule, the product of the predictions is the weighted mean of what each form gives to the whole text.
    nll, weights = made_nll(3, 40, 1), [0.5, 0.25, 0.25]
    following = following_nll(nll, weights, FollowingSettings(power=1.0, share=0.0)).sum()
    texts = [np.log(weight) - one.sum() for weight, one in zip(weights, nll, strict=True)]
    assert following == pytest.approx(-np.logaddexp.reduce(texts), rel=1e-12)


@given(st.integers(1, 5), st.integers(0, 99), st.floats(0, 1), st.floats(0, 2))
def test_it_follows_its_definition(forms: int, seed: int, share: float, power: float) -> None:
    nll = made_nll(forms, 20, seed)
    fitted = np.random.default_rng(seed + 1).dirichlet(np.ones(forms))
    weights, expected = fitted.copy(), []
    for token in range(20):
        probabilities = np.exp([-one[token] for one in nll])
        expected.append(-np.log(weights @ probabilities))
        weights = weights * probabilities**power
        weights = (1 - share) * weights / weights.sum() + share * fitted
    np.testing.assert_allclose(following_nll(nll, list(fitted), FollowingSettings(power, share)), expected, rtol=1e-9)


def test_no_probability_is_too_small() -> None:
    nll = [np.array([2000.0, 2000.0]), np.array([1000.0, 3000.0])]
    found = following_nll(nll, [0.5, 0.5], FollowingSettings(1.0, 0.5))
    np.testing.assert_allclose(found, [1000 - np.log(0.5), 2000 - np.log(0.25)], rtol=1e-9)


def test_it_is_tuned_to_follow_a_text_that_changes() -> None:
    changing = [np.repeat([1.0, 5.0], 100), np.repeat([5.0, 1.0], 100)]
    weights = fitted_weights(changing)
    chosen = tune_following(changing, weights)
    assert chosen.share < 1
    assert following_nll(changing, weights, chosen).mean() < mixed_nll(changing, weights).mean() - 0.3
    alternating = [np.tile([1.0, 2.0], 100), np.tile([2.0, 1.0], 100)]
    assert tune_following(alternating, [0.5, 0.5]).share == 1


def test_settings_out_of_range_are_refused() -> None:
    for settings in (FollowingSettings(1.0, 1.5), FollowingSettings(-1.0, 0.5)):
        with pytest.raises(LinguistError, match="share"):
            following_nll([np.zeros(1)], [1.0], settings)
