"""Stage `initialize`: what the model knows before its first update, from counts or from an existing model."""

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch_linguist.checkpoint.init_from import START, save_start
from torch_linguist.distributed import processes
from torch_linguist.distributed.data_parallel import broadcast_weights
from torch_linguist.pipeline.stages.stage import Stage, StageResult
from torch_linguist.trainer.initialization import start_from_counts, start_from_vectors, uses_cooccurrences

if TYPE_CHECKING:
    from torch_linguist.pipeline.run_context import RunContext


@dataclass(frozen=True)
class Initialize(Stage):
    """Initializes the model from counts, as `trainer.unigram_start` and `trainer.cooccurrence_start` say.

    With `init_from` the model takes the weights of an existing one instead, of which the run folder keeps a copy.

    The stage runs where another stage requires it, in every part of a run that is resumed: `check` sees a model that
    knows nothing, all later stages one that knows the token frequencies.
    """

    name = "initialize"
    title = "starting values from the counts of the training split"
    for_counted = True
    announced = False

    def run(self, context: "RunContext") -> StageResult:
        if (start := context.plan.start) is not None:
            note = start.load(context.model, context.training.corpus.tokenizer)
            if processes.is_main_process() and not (context.folder / START).is_file():
                save_start(context.folder, context.model)
            return StageResult("", notes=[f"initialize: {note}"])
        begin = time.perf_counter()
        settings = context.training.settings
        if context.plan.word_vectors is not None:
            settings = replace(settings, cooccurrence_start=False)
        started = start_from_counts(context.model, context.training.corpus, settings)
        if not context.counted:
            # Another process may have summed in another order, which would give another embedding.
            broadcast_weights(context.model)
        notes = []
        if started:
            notes.append("initialize: the output biases now hold the token frequencies (trainer.unigram_start)")
        if (vectors := context.plan.word_vectors) is not None:
            found = start_from_vectors(context.model, context.training.corpus.tokenizer, vectors)
            notes.append(f"initialize: {found}")
        elif uses_cooccurrences(context.model, context.training.corpus, settings):
            notes.append(f"initialize: embedding from co-occurrences in {time.perf_counter() - begin:.1f} s")
        return StageResult("", notes=notes)
