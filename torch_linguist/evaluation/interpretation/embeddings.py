"""Content of the embeddings: nearest neighbors, analogies, and a map of the most frequent words.

Shape legend: V vocabulary, D embedding, Q queries, K words of the map.
"""

import importlib.util
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.interpretation.attribution import embedding_of
from torch_linguist.evaluation.words import piece_texts, word_class
from torch_linguist.model import LanguageModel

Floats = NDArray[np.float64]

LEAST_COUNT = 10
"""Minimum occurrences in train. Embeddings of rarer words have hardly moved from their initial values."""

ANALOGIES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("man and woman", (("he", "she"), ("his", "her"), ("him", "her"), ("man", "woman"), ("king", "queen"),
                       ("men", "women"), ("father", "mother"), ("son", "daughter"), ("brother", "sister"))),
    ("one and many", (("year", "years"), ("day", "days"), ("game", "games"), ("country", "countries"),
                      ("nation", "nations"), ("state", "states"), ("war", "wars"), ("man", "men"))),
    ("present and past", (("is", "was"), ("are", "were"), ("has", "had"), ("make", "made"), ("take", "took"),
                          ("go", "went"), ("give", "gave"))),
    ("more and most", (("good", "better"), ("great", "greater"), ("large", "larger"), ("high", "higher"),
                       ("strong", "stronger"), ("small", "smaller"))),
    ("opposites", (("first", "last"), ("north", "south"), ("east", "west"), ("before", "after"), ("more", "less"),
                   ("old", "new"), ("up", "down"))),
)  # fmt: skip
"""Pairs of words by relation. Two pairs of a relation make an analogy: he is to she as man is to woman."""


def has_sklearn() -> bool:
    """Return whether scikit-learn, which the map needs, is installed."""
    return importlib.util.find_spec("sklearn") is not None


class WordVectors:
    """Embeddings of whole words that occur often enough in train.

    Attributes:
        words: texts of the words, the most frequent first.
        counts: occurrences of each word in train.
        vectors: embeddings of the words, centered and of length one, float64 [words, D]. Centering removes a direction
            that all embeddings share and that says nothing about the words (Mu & Viswanath 2018).
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, counts: NDArray[np.int64]) -> None:
        """Extract the embeddings of a model.

        Args:
            model: a model with embeddings.
            tokenizer: tokenizer of the model.
            counts: occurrences of each token in train [V].

        Raises:
            LinguistError: there are fewer than three such words.
        """
        texts = piece_texts(tokenizer)
        # Of subwords, only those that begin a word, and so may be a whole word.
        whole = [
            number
            for number in np.argsort(-counts, kind="stable").tolist()
            if counts[number] >= LEAST_COUNT
            and texts[number].startswith(" ")
            and any(sign.isalnum() for sign in texts[number])
            and number not in (tokenizer.eos_id, tokenizer.unk_id)
        ]
        if len(whole) < 3:
            raise LinguistError(f"fewer than 3 words of the vocabulary occur at least {LEAST_COUNT} times in train")
        self.words = [texts[number].strip() for number in whole]
        self.counts = counts[whole]
        weight = embedding_of(model).weight.detach().double().cpu().numpy()[whole]
        weight = weight - weight.mean(axis=0)
        self.vectors: Floats = weight / np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-12)
        self._places: dict[str, int] = {word: place for place, word in reversed(list(enumerate(self.words)))}

    def __contains__(self, word: str) -> bool:
        return word in self._places

    def place(self, word: str) -> int:
        """Return the row of a word."""
        return self._places[word]

    def neighbors(self, queries: Sequence[str], count: int = 8) -> pd.DataFrame:
        """Return the words with the largest cosine to each query.

        Returns:
            One row per neighbor: `word`, `occurrences` in train, `rank`, `neighbor`, `cosine`.
        """
        rows = []
        for query in queries:
            place = self.place(query)
            cosines = self.vectors @ self.vectors[place]
            cosines[place] = -np.inf
            for rank, other in enumerate(np.argsort(-cosines, kind="stable")[:count].tolist(), 1):
                rows.append((query, int(self.counts[place]), rank, self.words[other], float(cosines[other])))
        return pd.DataFrame(rows, columns=["word", "occurrences", "rank", "neighbor", "cosine"])

    def analogies(self) -> pd.DataFrame:
        """Answer every analogy of `ANALOGIES` whose four words are known by the largest cosine to b - a + c.

        The three given words are excluded from the answers (Mikolov et al. 2013).

        Returns:
            One row per analogy: `relation`, `a`, `b`, `c`, `expected`, `answer`, `rank` of the expected word.
        """
        rows = []
        for relation, pairs in ANALOGIES:
            known = [pair for pair in pairs if pair[0] in self and pair[1] in self]
            for a, b in known:
                for c, expected in known:
                    if len({a, b, c, expected}) == 4:
                        rows.append((relation, a, b, c, expected, *self._answer(a, b, c, expected)))
        return pd.DataFrame(rows, columns=["relation", "a", "b", "c", "expected", "answer", "rank"])

    def _answer(self, a: str, b: str, c: str, expected: str) -> tuple[str, int]:
        given = [self.place(word) for word in (a, b, c)]
        cosines = self.vectors @ (self.vectors[given[1]] - self.vectors[given[0]] + self.vectors[given[2]])
        cosines[given] = -np.inf
        answer = self.words[int(cosines.argmax())]
        return answer, int((cosines > cosines[self.place(expected)]).sum()) + 1

    def typical_words(self, count: int) -> list[str]:
        """Return frequent content words, as queries for `neighbors`."""
        meaning = [word for word in self.words if word_class(word) in ("content", "capitalized") and len(word) > 2]
        return meaning[:count]

    def map(self, count: int, seed: int) -> pd.DataFrame:
        """Map the most frequent words to the plane: principal components, and t-SNE (van der Maaten & Hinton 2008).

        Returns:
            One row per word: `word`, `occurrences`, `class`, `pca_1`, `pca_2`, `tsne_1`, `tsne_2`; `attrs["explained"]`
            is the share of the variance in the two components.

        Raises:
            LinguistError: scikit-learn is not installed.
        """
        if not has_sklearn():
            raise LinguistError('the map needs scikit-learn: pip install "torch-linguist[analyze]"')
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

        own = self.vectors[:count]
        components = PCA(2, random_state=seed)
        plane = components.fit_transform(own)
        perplexity = min(30.0, max(1.0, (len(own) - 1) / 3))
        spread = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, metric="cosine").fit_transform(own)
        frame = pd.DataFrame({"word": self.words[:count], "occurrences": self.counts[:count]})
        frame["class"] = [word_class(word) for word in frame["word"]]
        frame[["pca_1", "pca_2"]] = plane
        frame[["tsne_1", "tsne_2"]] = spread.astype(np.float64)
        frame.attrs["explained"] = float(components.explained_variance_ratio_.sum())
        return frame
