"""The thread that computes: requests join and leave the batch between two tokens.

A prompt is read in chunks that begin at multiples of `CHUNK`, and the state after each chunk is kept for later prompts
that begin the same way. Neither the batch nor the kept states change a single bit of an answer.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torch_linguist.model import State
from torch_linguist.serve.batching import advance
from torch_linguist.serve.limits import Limits, RequestError
from torch_linguist.serve.prefix_cache import PrefixCache
from torch_linguist.serve.reading import Reading
from torch_linguist.serve.served_model import ServedModel
from torch_linguist.serve.server_metrics import Metrics
from torch_linguist.serve.text_completion import Piece

CHUNK = 64
"""Tokens of a prompt that are read at a time."""

CHUNKS_PER_STEP = 4
"""Chunks of prompts that are read between two steps of the completions at work."""

Deliver = Callable[[int, "Piece | Tensor | RequestError"], None]
"""Called in the engine's thread with the number of a reading and a part of its result, or with an error."""


@dataclass(eq=False)
class Job:
    """The readings of one request.

    Attributes:
        model: model that reads.
        readings: texts to read.
        deliver: takes the results.
        deadline: time by `time.monotonic` at which the request fails.
        streams: whether pieces are delivered as they come.
        cancelled: whether nobody waits for the results any more.
        started: whether a reading has begun.
        left: number of readings that have not ended.
    """

    model: ServedModel
    readings: Sequence[Reading]
    deliver: Deliver
    deadline: float
    streams: bool
    cancelled: bool = False
    started: bool = False
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.readings)


@dataclass(eq=False)
class _Task:
    """A reading at work.

    Attributes:
        job: request that it belongs to.
        index: its number there.
        reading: the text.
        state: state after the tokens that were read.
        position: number of tokens of the prompt that were read.
    """

    job: Job
    index: int
    reading: Reading
    state: State
    position: int

    @property
    def prompt_read(self) -> bool:
        return self.position == len(self.reading.ids) - 1


class Engine:
    """Runs requests on one thread of its own.

    Args:
        limits: limits of the server.

    Attributes:
        metrics: counters of tokens.
    """

    def __init__(self, limits: Limits) -> None:
        self.metrics = Metrics()
        self._limits = limits
        self._cache = PrefixCache(limits.cache_mib << 20)
        self._waiting: deque[tuple[Job, int]] = deque()
        self._tasks: list[_Task] = []
        self._open: set[Job] = set()
        self._draining = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, model: ServedModel, readings: Sequence[Reading], deliver: Deliver, streams: bool = False) -> Job:
        """Queue the readings of a request.

        Args:
            model: model that reads.
            readings: texts to read.
            deliver: takes the results.
            streams: whether pieces are delivered as they come.

        Raises:
            RequestError: too many requests wait, or the server is about to end.
        """
        job = Job(model, readings, deliver, time.monotonic() + self._limits.seconds, streams)
        with self._changed:
            if self._draining:
                raise RequestError(503, "the server is shutting down; send the request to another one")
            if len(self._open) >= self._limits.requests:
                raise RequestError(429, f"{len(self._open)} requests are at work or waiting; try again later")
            self._open.add(job)
            self._waiting.extend((job, index) for index in range(len(readings)))
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """End the work for a request whose client has left."""
        with self._changed:
            job.cancelled = True
            self._changed.notify()

    def drain(self) -> None:
        """Refuse new requests and those that have not begun; the others go on."""
        with self._changed:
            self._draining = True
            for job in [job for job in self._open if not job.started]:
                self._fail(job, RequestError(503, "the server is shutting down; send the request to another one"))

    def close(self) -> None:
        """Stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Return description and value of what goes up and down."""
        return {
            "completions_running": ("completions at work", len(self._tasks)),
            "completions_waiting": ("completions that have not begun", len(self._waiting)),
            "requests_open": ("requests at work or waiting", len(self._open)),
            "prefix_cache_bytes": ("memory of kept states", self._cache.used_bytes),
        }

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting or self._tasks)
                if self._closed:
                    return
                self._admit()
            with torch.inference_mode():
                self._read_prompts()
                self._step()

    def _admit(self) -> None:
        """Drop what is cancelled or late, and begin waiting readings while there is room."""
        now = time.monotonic()
        for job in list(self._open):
            if job.cancelled:
                self._forget(job)
            elif now > job.deadline:
                self._fail(job, RequestError(504, f"no answer within {self._limits.seconds:g} seconds"))
        while self._waiting and len(self._tasks) < self._limits.rows:
            job, index = self._waiting.popleft()
            job.started = True
            reading = job.readings[index]
            position, state = self._known(job.model, reading)
            self.metrics.prompt_tokens += len(reading.ids)
            self.metrics.reused_tokens += position
            self._tasks.append(_Task(job, index, reading, state, position))

    def _known(self, model: ServedModel, reading: Reading) -> tuple[int, State]:
        """Return the longest useful prefix that was read before, and the state after it."""
        last = len(reading.ids) - 1
        useful = min(last, reading.first_row)
        for end in [*([last] if useful == last else []), *range(useful // CHUNK * CHUNK, 0, -CHUNK)]:
            state = self._cache.get(model.name, reading.ids[:end])
            if state is not None:
                return end, state
        return 0, model.model.initial_state(1)

    def _read_prompts(self) -> None:
        unread = [task for task in self._tasks if not task.prompt_read]
        for task in unread[:CHUNKS_PER_STEP]:
            self._guarded([task], self._read_chunk)
        for task in list(self._tasks):
            if task.prompt_read and not task.reading.wants_prediction:
                task.reading.end()
                self._deliver(task)

    def _read_chunk(self, tasks: Sequence[_Task]) -> None:
        """Read the next chunk of the prompt of a single task."""
        (task,) = tasks
        model, ids = task.job.model.model, task.reading.ids
        begin = task.position
        end = min((begin // CHUNK + 1) * CHUNK, len(ids) - 1)
        tokens = torch.tensor([ids[begin:end]])
        if end > task.reading.first_row or not model.has_hidden:
            logits, task.state = model(tokens, task.state)
            first = max(begin, task.reading.first_row)
            if first < end:
                task.reading.take_rows(first, torch.log_softmax(logits[0, first - begin :].float(), dim=-1))
        else:
            # Only the state is needed, not the output layer.
            task.state = model.last_hidden(tokens, task.state, 1)[1]
        task.position = end
        self._cache.put(task.job.model.name, ids[:end], task.state)

    def _step(self) -> None:
        """Read one more token of every task whose prompt has been read."""
        ready = [task for task in self._tasks if task.prompt_read]
        for model in {task.job.model.name: task.job.model for task in ready}.values():
            self._guarded([task for task in ready if task.job.model is model], self._advance)

    def _advance(self, tasks: Sequence[_Task]) -> None:
        tokens, states = [task.reading.next_token for task in tasks], [task.state for task in tasks]
        logits, new_states = advance(tasks[0].job.model.model, tokens, states, self._limits.rows)
        log_probs = torch.log_softmax(torch.stack(logits).float(), dim=-1)
        for task, state, row in zip(tasks, new_states, log_probs, strict=True):
            task.state = state
            task.reading.take_prediction(row)
            self.metrics.completion_tokens += 1
            if task.job.streams or task.reading.done:
                self._deliver(task)

    def _guarded(self, tasks: Sequence[_Task], work: Callable[[Sequence[_Task]], None]) -> None:
        """Do work for tasks; an error fails their requests, not the server."""
        try:
            work(tasks)
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the other requests go on
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            with self._changed:
                for job in {task.job for task in tasks}:
                    self._fail(job, RequestError(500, f"the model failed ({reason})"))

    def _deliver(self, task: _Task) -> None:
        piece = task.reading.piece()
        with self._changed:
            if task.job.cancelled or task.job not in self._open:
                return
            if task.reading.done:
                self._tasks.remove(task)
                task.job.left -= 1
                if not task.job.left:
                    self._open.discard(task.job)
            if piece is not None:
                task.job.deliver(task.index, piece)

    def _fail(self, job: Job, error: RequestError) -> None:
        if job in self._open:
            self._forget(job)
            job.deliver(0, error)

    def _forget(self, job: Job) -> None:
        self._open.discard(job)
        self._waiting = deque((other, index) for other, index in self._waiting if other is not job)
        self._tasks = [task for task in self._tasks if task.job is not job]
