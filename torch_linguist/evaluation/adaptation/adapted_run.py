"""A model with everything it can do at test time: a continuous cache, dynamic evaluation, and both together.

Shape legend: N tokens of a stream.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.evaluation.adaptation.continuous_cache import (
    CacheSettings,
    HiddenPart,
    cache_components,
    hidden_parts,
    tune_cache,
)
from torch_linguist.evaluation.adaptation.dynamic_evaluation import (
    DynamicSettings,
    dynamic_parts,
    gradient_scale,
    segment_of,
    tune_dynamic,
)
from torch_linguist.evaluation.split_evaluation import reading_of
from torch_linguist.model import LanguageModel

Progress = Callable[[str, float], None]
"""Called with what is being scored and the fraction that is done."""


@dataclass(frozen=True)
class AdaptationSettings:
    """How models adapt.

    Attributes:
        cache_size: tokens of a continuous cache; None for none.
        dynamic: whether to use dynamic evaluation.
        segment: tokens per step of dynamic evaluation.
        tune_tokens: tokens of valid to tune on.
        stride: see `score`.
        precision: see `score`; dynamic evaluation computes in the type of the weights.
    """

    cache_size: int | None
    dynamic: bool
    segment: int
    tune_tokens: int
    stride: int | None
    precision: str = "fp32"


class AdaptedRun:
    """A model with the adaptations that it supports, tuned on the start of valid.

    Args:
        label: name of the model in messages.
        model: the model, which is not changed.
        train: the training split, whose gradients scale those of dynamic evaluation.
        valid: the validation split.
        settings: requested adaptations; those that the model does not support are left out.
        note: called with the chosen settings, in one line each.
        progress: called while a stream is read.
    """

    def __init__(
        self,
        label: str,
        model: LanguageModel,
        train: TokenStream,
        valid: TokenStream,
        settings: AdaptationSettings,
        note: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self._label, self._model, self._settings = label, model, settings
        self._note, self._progress, self._valid = note, progress, valid
        self._scale: list[Tensor] = []
        self._dynamic: DynamicSettings | None = None
        self._caches: dict[str, CacheSettings] = {}
        self._tuned_on: dict[str, list[HiddenPart]] = {}
        if settings.dynamic and can_learn(model):
            self._tune_dynamic(train)
        if settings.cache_size is not None and model.has_hidden:
            for kind in ("cache", *(["dynamic + cache"] if self._dynamic else [])):
                self._tune_cache(kind, settings.cache_size)

    def nll(self, stream: TokenStream, max_tokens: int | None = None) -> dict[str, NDArray[np.float64]]:
        """Return the nll [N] of every token of a stream under each adaptation.

        Args:
            stream: one split.
            max_tokens: number of tokens to score from the start; None for all.
        """
        found: dict[str, NDArray[np.float64]] = {}
        if (cache := self._caches.get("cache")) is not None:
            _, found["cache"] = self._cached("cache", cache, stream, max_tokens)
        if (cache := self._caches.get("dynamic + cache")) is not None:
            found["dynamic"], found["dynamic + cache"] = self._cached("dynamic + cache", cache, stream, max_tokens)
        elif self._dynamic is not None:
            parts = [part.nll.double().cpu().numpy() for part in self._parts("dynamic", stream, max_tokens)]
            found["dynamic"] = np.concatenate(parts)
        return found

    def reading(self, kind: str) -> str:
        """Return how the model reads a stream under an adaptation (a key of `nll`), in words."""
        settings = self._settings
        if kind == "cache":
            return reading_of(self._model, settings.stride, settings.precision)
        segment = segment_of(self._model, settings.segment)
        return f"{reading_of(self._model, segment)}, weights change every {segment} tokens"

    def _cached(
        self, kind: str, cache: CacheSettings, stream: TokenStream, max_tokens: int | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the nll [N] without and with the cache, from one pass over the stream."""
        components = cache_components(self._parts(kind, stream, max_tokens), cache.size, [cache.theta])
        return components.nll.numpy(), components.mixed(cache.share).numpy()

    def _parts(self, kind: str, stream: TokenStream, max_tokens: int | None) -> Iterable[HiddenPart]:
        if stream is not self._valid or max_tokens != self._settings.tune_tokens:
            return self._read(kind, stream, max_tokens)
        # The tokens of the tuning are read once for the cache and the weights of a mixture.
        if kind not in self._tuned_on:
            self._tuned_on[kind] = list(self._read(kind, stream, max_tokens))
        return self._tuned_on[kind]

    def _read(self, kind: str, stream: TokenStream, max_tokens: int | None) -> Iterator[HiddenPart]:
        if kind == "cache" or self._dynamic is None:
            stride, precision = self._settings.stride, self._settings.precision
            parts = hidden_parts(self._model, stream, max_tokens, stride=stride, precision=precision)
        else:
            parts = dynamic_parts(self._model, stream, self._dynamic, self._scale, max_tokens=max_tokens)
        total = len(stream) if max_tokens is None else min(max_tokens, len(stream))
        return self._watched(parts, f"{self._label} + {kind} on {stream.split}", total)

    def _watched(self, parts: Iterable[HiddenPart], what: str, total: int) -> Iterator[HiddenPart]:
        done = 0
        for part in parts:
            yield part
            done += len(part.targets)
            self._progress(what, done / total)

    def _tune_dynamic(self, train: TokenStream) -> None:
        settings = self._settings
        self._scale = gradient_scale(
            self._model,
            train,
            segment=settings.segment,
            progress=lambda done: self._progress(f"{self._label} + dynamic: gradients of the training split", done),
        )
        best, tried = tune_dynamic(
            self._model,
            self._valid,
            self._scale,
            segment=settings.segment,
            max_tokens=settings.tune_tokens,
            progress=lambda fraction: self._progress(f"{self._label} + dynamic: tuning on valid", fraction),
        )
        self._dynamic = best
        found = f"learning rate {best.learning_rate:g}, decay {best.decay:g}, {best.segment} tokens per step"
        self._note_tuning(f"dynamic: {found}", [loss for _, loss in tried])

    def _tune_cache(self, kind: str, size: int) -> None:
        best, tried = tune_cache(self._parts(kind, self._valid, self._settings.tune_tokens), size=size)
        self._caches[kind] = best
        found = f"theta {best.theta:g}, share {best.share:g}, {best.size} tokens"
        self._note_tuning(f"{kind}: {found}", [loss for _, loss in tried])

    def _note_tuning(self, found: str, losses: Sequence[float]) -> None:
        tokens = min(self._settings.tune_tokens, len(self._valid))
        self._note(
            f"{self._label} + {found}; best of {len(losses)} on the first {tokens:,} tokens of valid "
            f"(loss {min(losses):.4f}; worst {max(losses):.4f})"
        )


def can_learn(model: LanguageModel) -> bool:
    """Return whether a model has trainable weights, which dynamic evaluation needs."""
    return any(weight.requires_grad for weight in model.parameters())
