"""The engine: answers that do not depend on company or kept states, and requests that end early."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_linguist.data import TokenizedCorpus
from torch_linguist.evaluation.texts.line_scores import score_blocks
from torch_linguist.generation import Sampling, continue_prompt
from torch_linguist.model import LanguageModel, Mixture, NGramModel
from torch_linguist.serve import Engine, Limits, ServedModel
from torch_linguist.serve.batch_engine import CHUNK
from torch_linguist.serve.limits import RequestError
from torch_linguist.serve.reading import Distributions
from torch_linguist.serve.text_completion import Piece, Prompt, TextCompletion

ModelBuilder = Callable[..., LanguageModel]
SHARED = "the king sees the river . " * 25


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(Limits(rows=4, requests=40))
    yield engine
    engine.close()


@pytest.fixture(params=["lstm", "transformer", "ngram", "mixture"])
def served(request: pytest.FixtureRequest, build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> ServedModel:
    size = tiny_corpus.tokenizer.vocab_size
    model: LanguageModel
    if request.param in ("ngram", "mixture"):
        model = NGramModel(size, order=3)
        model.fit_counts(tiny_corpus.train.ids, tiny_corpus.tokenizer.eos_id)
        if request.param == "mixture":
            model = Mixture([model, build_model("lstm", size)], [0.5, 0.5]).eval()
    else:
        model = build_model(request.param, size, **({"context_length": 90} if request.param == "transformer" else {}))
    return ServedModel(request.param, model, tiny_corpus.tokenizer)


def completion(served: ServedModel, prompt: str, **options: Any) -> TextCompletion:
    chosen: dict[str, Any] = {"sampling": Sampling(), "max_tokens": 12, "seed": 1} | options
    return TextCompletion(Prompt.of_text(prompt, served.tokenizer), served.tokenizer, **chosen)


def collect(engine: Engine, served: ServedModel, jobs: list[list[Any]], streams: bool = False) -> list[list[Any]]:
    """For each job the results of its readings, the jobs sent together."""
    found: queue.Queue[tuple[int, int, Any]] = queue.Queue()
    left = 0
    for number, readings in enumerate(jobs):
        left += len(readings)
        deliver = partial(lambda number, index, result: found.put((number, index, result)), number)
        engine.submit(served, readings, deliver, streams)
    results: list[list[Any]] = [[None] * len(readings) for readings in jobs]
    while left:
        number, index, result = found.get(timeout=60)
        if isinstance(result, RequestError):
            raise result
        if isinstance(result, Piece) and result.reason is None:
            continue
        results[number][index] = result
        left -= 1
    return results


def test_an_answer_does_not_depend_on_company_or_kept_states(engine: Engine, served: ServedModel) -> None:
    prompts = [SHARED[: 26 * count] + end for count in (0, 1, 13, 25) for end in ("a queen", "the judge finds")]

    def asked(index: int) -> TextCompletion:
        options = {"max_tokens": 4 + 5 * index, "seed": index, "logprobs": 2, "echo": index % 3 == 0}
        return completion(served, prompts[index], **options)

    alone = []
    for index in range(len(prompts)):
        fresh = Engine(Limits(rows=4))
        alone += collect(fresh, served, [[asked(index)]])
        fresh.close()
    for _ in range(2):
        together = collect(engine, served, [[asked(index)] for index in range(len(prompts))])
        for (one,), (other,) in zip(alone, together, strict=True):
            assert (one.text, one.scores) == (other.text, other.scores)
    assert engine.metrics.reused_tokens > 5 * CHUNK


def test_a_completion_is_that_of_continue_prompt(engine: Engine, served: ServedModel) -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9)
    ((found,),) = collect(engine, served, [[completion(served, "the king", sampling=sampling, seed=5, logprobs=0)]])
    (expected,) = continue_prompt(
        served.model, served.tokenizer, "the king", sampling, max_tokens=12, seed=5, alternatives=1
    )
    assert found.text == expected.new_text
    assert sum(score.log_prob for score in found.scores) == pytest.approx(expected.log_probability, rel=1e-4)
    assert found.reason == "length"
    assert found.generated == 12


def test_a_scored_prompt_has_the_scores_of_its_line(engine: Engine, served: ServedModel) -> None:
    text = SHARED[:260]
    ((found,),) = collect(engine, served, [[completion(served, text, max_tokens=0, logprobs=1, echo=True)]])
    (expected,) = score_blocks(served.model, served.tokenizer, [text], closed=False)
    assert [score.token for score in found.scores] == expected.lines.ids.tolist()
    np.testing.assert_allclose([score.log_prob for score in found.scores], -expected.nll, rtol=1e-4, atol=1e-5)
    assert all(dict(score.best)[score.token] == score.log_prob for score in found.scores)
    assert [text[score.offset] for score in found.scores] == [word[0] for word in text.split()]


def test_distributions_are_those_of_one_pass(engine: Engine, served: ServedModel) -> None:
    ids = [served.tokenizer.eos_id, *served.tokenizer.encode(SHARED[:400])]
    for begin in (0, len(ids) - 3):
        ((rows,),) = collect(engine, served, [[Distributions(ids, begin)]])
        with torch.inference_mode():
            whole, _ = served.model(torch.tensor([ids]), served.model.initial_state(1))
        torch.testing.assert_close(rows, torch.log_softmax(whole[0, begin:].float(), dim=-1), atol=1e-4, rtol=1e-4)


def test_a_stop_ends_a_completion_and_is_cut_off(engine: Engine, build_model: ModelBuilder, tiny_corpus: Any) -> None:
    served = ServedModel("m", build_model("lstm", tiny_corpus.tokenizer.vocab_size), tiny_corpus.tokenizer)
    ((whole,),) = collect(engine, served, [[completion(served, "the king", max_tokens=30)]])
    stop = whole.text[20:24]
    ((found,),) = collect(engine, served, [[completion(served, "the king", max_tokens=30, stop=[stop])]])
    assert found.text == whole.text[: whole.text.index(stop)]
    assert found.reason == "stop"


class Slow(NGramModel):
    """A unigram model whose steps wait for a permission, or fail."""

    def __init__(self, vocab_size: int, order: int = 1) -> None:
        super().__init__(vocab_size, order=order)
        self.permitted = threading.Semaphore(0)
        self.fails = False

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if self.fails:
            raise RuntimeError("broken\nmodel")
        self.permitted.acquire()
        return super().forward(tokens, state)


@pytest.fixture
def slow(tiny_corpus: TokenizedCorpus) -> ServedModel:
    model = Slow(tiny_corpus.tokenizer.vocab_size)
    model.fit_counts(tiny_corpus.train.ids, tiny_corpus.tokenizer.eos_id)
    return ServedModel("slow", model, tiny_corpus.tokenizer)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_cancelled_request_leaves_the_batch(slow: ServedModel) -> None:
    engine, delivered = Engine(Limits(rows=1)), list[Any]()
    job = engine.submit(slow, [completion(slow, "a")] * 1, lambda *result: delivered.append(result))
    wait_until(lambda: engine.gauges()["completions_running"][1] == 1)
    engine.cancel(job)
    slow.model.permitted.release(2)  # type: ignore[operator, union-attr]
    wait_until(lambda: engine.gauges()["requests_open"][1] == 0)
    engine.close()
    assert not delivered
    assert engine.metrics.completion_tokens < 3


def test_too_many_requests_are_refused_and_a_drained_engine_finishes_what_runs(slow: ServedModel) -> None:
    engine, delivered = Engine(Limits(rows=1, requests=2)), list[Any]()

    def note(number: int, _: int, result: Any) -> None:
        delivered.append((number, result))

    for number in range(2):
        engine.submit(slow, [completion(slow, "a")], partial(note, number))
        wait_until(lambda: engine.gauges()["completions_running"][1] == 1)
    with pytest.raises(RequestError) as caught:
        engine.submit(slow, [completion(slow, "a")], lambda *_: None)
    assert caught.value.status == 429
    engine.drain()
    assert [(number, result.status) for number, result in delivered] == [(1, 503)]
    with pytest.raises(RequestError) as caught:
        engine.submit(slow, [completion(slow, "a")], lambda *_: None)
    assert caught.value.status == 503
    slow.model.permitted.release(100)  # type: ignore[operator, union-attr]
    wait_until(lambda: len(delivered) == 2)
    engine.close()
    assert delivered[1][0] == 0
    assert delivered[1][1].reason == "length"


def test_a_late_request_and_a_failing_model_end_as_errors(slow: ServedModel) -> None:
    engine, delivered = Engine(Limits(rows=1, seconds=0.1)), list[Any]()
    engine.submit(slow, [completion(slow, "a")], lambda _, result: delivered.append(result))
    time.sleep(0.15)
    slow.model.permitted.release(100)  # type: ignore[operator, union-attr]
    wait_until(lambda: len(delivered) == 1)
    slow.model.fails = True  # type: ignore[assignment]
    engine.submit(slow, [completion(slow, "a")], lambda _, result: delivered.append(result))
    wait_until(lambda: len(delivered) == 2)
    engine.close()
    assert [error.status for error in delivered] == [504, 500]
    assert delivered[1].as_dict()["error"]["message"] == "the model failed (RuntimeError: broken model)"
