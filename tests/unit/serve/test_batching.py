"""Steps of several texts: the same bits in any company, and the numbers of the model's own pass."""

from collections.abc import Callable

import pytest
import torch

from torch_linguist.data import TokenizedCorpus
from torch_linguist.model import LanguageModel, Mixture, NGramModel
from torch_linguist.serve.batching import advance

ModelBuilder = Callable[..., LanguageModel]
FAMILIES = ["rnn", "lstm", "gru", "transformer", "ngram", "mixture"]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> LanguageModel:
    size = tiny_corpus.tokenizer.vocab_size
    if request.param in ("ngram", "mixture"):
        counted = NGramModel(size, order=3)
        counted.fit_counts(tiny_corpus.train.ids, tiny_corpus.tokenizer.eos_id)
        if request.param == "ngram":
            return counted
        return Mixture([counted, build_model("transformer", size)], [0.5, 0.5]).eval()
    return build_model(request.param, size, output="sampled", tied=True)


def test_a_text_reads_the_same_in_any_batch(model: LanguageModel) -> None:
    torch.manual_seed(1)
    # Lengths around the Transformer's context of 8.
    texts = [torch.randint(0, model.vocab_size, (length,)).tolist() for length in (1, 3, 3, 5, 8, 9, 20, 2, 1, 7)]
    with torch.inference_mode():
        states = [model(torch.tensor([text]), model.initial_state(1))[1] for text in texts]
        tokens = [text[-1] for text in texts]
        for _ in range(3):
            logits, together = advance(model, tokens, states, rows=4)
            for index, text in enumerate(texts):
                own_logits, own_state = advance(model, tokens[index : index + 1], states[index : index + 1], rows=4)
                assert torch.equal(own_logits[0], logits[index])
                assert all(torch.equal(one, other) for one, other in zip(own_state[0], together[index], strict=True))
                text.append(tokens[index])
                whole, state = model(torch.tensor([text]), model.initial_state(1))
                torch.testing.assert_close(logits[index], whole[0, -1], atol=1e-5, rtol=1e-5)
                assert [part.shape for part in state] == [part.shape for part in together[index]]
            states, tokens = together, [int(row.argmax()) for row in logits]
