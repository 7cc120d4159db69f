"""Stage `fit`: the long training with the chosen rates (one pass of counting for an n-gram), then the final scores."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch_linguist.checkpoint import save_checkpoint
from torch_linguist.distributed import processes
from torch_linguist.evaluation import BaselineComparison
from torch_linguist.evaluation.scoring import as_dicts
from torch_linguist.pipeline.final_scores import final_comparison, hyperparameters
from torch_linguist.pipeline.run_summary import counting_facts, training_facts
from torch_linguist.pipeline.stages.stage import Stage, StageResult
from torch_linguist.report.loggers import LoggedRun
from torch_linguist.trainer import Fit, FitResult
from torch_linguist.trainer.callbacks.checkpointing import newest_state

if TYPE_CHECKING:
    from torch_linguist.pipeline.run_context import RunContext


@dataclass(frozen=True)
class FitStage(Stage):
    """Trains the model and scores its best checkpoint, beside the baselines, on the validation and test splits.

    A resumed run continues from its newest checkpoint. A model that is fitted by counting is counted in one pass.
    """

    name = "fit"
    title = "the long training"
    requires = ("initialize",)
    artifacts: ClassVar = {
        "metrics": "metrics.csv",
        "pace": "pace.csv",
        "curves": "curves.png",
        "profile": "profile.csv",
        "profile_plot": "profile.png",
        "trace": "profile/trace.json",
        "tensorboard": "tensorboard",
        "best": "checkpoints/best.pt",
        "last": "checkpoints/last.pt",
    }
    tables = ("metrics.csv",)
    for_counted = True

    def is_done(self, context: "RunContext", facts: Mapping[str, Any]) -> bool:
        # A training that is done may still continue: its limits can be raised.
        return context.counted

    def prepare(self, context: "RunContext") -> None:
        if context.counted:
            return
        found = newest_state(context.folder / "checkpoints") if context.plan.resume else None
        if found is not None:
            path, content = found
            saved, plan, results = content["progress"], context.plan, context.results
            results.checkpoint, results.steps = path, int(saved["step"])
            results.learning_rate = plan.lr or float(saved["lr"])
            results.weight_decay = float(saved["weight_decay"]) if plan.weight_decay is None else plan.weight_decay
        context.learning_rate()
        context.weight_decay()

    def about(self, context: "RunContext") -> str:
        if context.counted:
            return "counting"
        about = f"optim.lr={context.learning_rate():.3g} optim.weight_decay={context.weight_decay():g}"
        return f"{about}, from step {context.results.steps}" if context.results.checkpoint else about

    def run(self, context: "RunContext") -> StageResult:
        if context.counted:
            return self._count(context)
        result = self._train(context)
        context.results.steps = result.steps
        context.summary.update(
            {
                "lr": context.learning_rate(),
                "weight_decay": context.weight_decay(),
                "compile": result.compiled,
                "train": training_facts(result, context.training.settings.device),
            }
        )
        best = f"valid perplexity {math.exp(min(result.best_loss, 700)):.2f} at update {result.best_step:,}"
        speed = f"{result.tokens:,} tokens at {result.tokens_per_second:,.0f} per second"
        share = result.checkpoint_seconds / max(result.seconds, 1e-9)
        verdict = f"{best} of {result.steps:,}; {speed}; checkpoints {share:.1%} of the time; {result.reason}"
        finished = result.status == "finished"
        return StageResult(verdict, {"reason": result.reason}, self._notes(result) if finished else (), finished)

    def _notes(self, result: FitResult) -> list[str]:
        """Return a note if the model overfitted."""
        if result.best_step >= result.steps / 2:
            return []
        return [
            f"fit: no validation after update {result.best_step:,} of {result.steps:,} was better: the model learned "
            "the training text by heart. A higher model.dropout or optim.weight_decay, a smaller model, or a shorter "
            "training may help"
        ]

    def _train(self, context: "RunContext") -> FitResult:
        corpus, results, main = context.training.corpus, context.results, processes.is_main_process()
        if main:
            run = LoggedRun(context.folder, results.steps if results.checkpoint else None, context.plan.parameters)
            for logger in context.plan.loggers:
                logger.start(run)
                context.callbacks.add(logger)
        if results.checkpoint is None:
            context.callbacks.model_ready(context.model, corpus.tokenizer.tokens)
        sample = context.plan.sample
        result = Fit(
            context.model,
            context.training,
            context.learning_rate(),
            context.weight_decay(),
            context.folder,
            context.callbacks,
            (lambda model: sample.draw(model, corpus.tokenizer)) if main else None,
            context.stop,
            results.checkpoint,
            context.plan.recorded_progress,
        ).run()
        processes.leave_process_group()
        return result

    def _count(self, context: "RunContext") -> StageResult:
        model, corpus = context.model, context.training.corpus
        begin, seconds = time.perf_counter(), 0.0

        def save() -> None:
            nonlocal seconds
            seconds = time.perf_counter() - begin
            save_checkpoint(context.folder / "checkpoints" / "best.pt", model, {"tokens": len(corpus.train)})

        with _shown_messages(context.callbacks.noted):
            model.fit_counts(corpus.train.ids, corpus.tokenizer.eos_id, save)
        facts = {"parameters": model.num_parameters(), "train": counting_facts(len(corpus.train), seconds)}
        context.summary.update(facts)
        context.callbacks.sampled(context.plan.sample.draw(model, corpus.tokenizer), 0)
        return StageResult(f"{facts['parameters']:,} n-grams of {len(corpus.train):,} tokens", facts)

    def restore(self, context: "RunContext", facts: Mapping[str, Any]) -> None:
        context.summary.update({"parameters": facts["parameters"], "train": facts["train"]})

    def conclude(self, context: "RunContext") -> None:
        """Score the best model on the validation and test splits, and the baselines unless the run is to stop."""
        if not processes.is_main_process():
            return
        best, corpus, plan, summary = context.best_model(), context.training.corpus, context.plan, context.summary
        name = plan.names.get("model", type(best).__name__)
        precision = context.training.settings.precision if plan.score.precision == "training" else plan.score.precision
        if precision == "bf16":
            context.callbacks.noted("scores: products in bfloat16 (score.precision); tl-eval scores in fp32")
        found = final_comparison(best, corpus, plan.score, precision, name, baselines=not context.stop())
        context.results.scores, context.results.verdict = found.rows(name), found.verdict
        summary.update(as_dicts(found.own))
        summary["baselines"] = {baseline: as_dicts(scores) for baseline, scores in found.baselines.items()}
        if found.mixture:
            summary["mixture"] = {"weight": found.weight, **as_dicts(found.mixture)}
        if found.members:
            weights = [weight for _, weight in best.mixture()]
            summary["members"] = [
                {"weight": weight, **as_dicts(scores)} for weight, scores in zip(weights, found.members, strict=True)
            ]
        self._draw_curves(context, found)
        metrics = {f"final/{split}_perplexity": score.perplexity for split, score in found.own.items()}
        chosen = hyperparameters(summary, best)
        context.callbacks.finished(best, corpus.tokenizer.tokens, chosen, metrics, context.results.steps)

    def _draw_curves(self, context: "RunContext", found: BaselineComparison) -> None:
        from torch_linguist.report.plots import plot_curves  # matplotlib: no update waits for it

        table = context.folder / "metrics.csv"
        if not table.is_file():
            return
        named = next(iter(found.baselines.items()), None)
        baseline = (named[0], named[1]["valid"].loss) if named else None
        dropout = context.model.arguments.get("dropout")
        plot_curves(table, context.folder / "curves.png", baseline, dropout if isinstance(dropout, float) else None)


@contextmanager
def _shown_messages(note: Callable[[str], None]) -> Iterator[None]:
    """Pass what models log within the block, such as the progress of counting, to a function."""
    logger, handler = logging.getLogger("torch_linguist.model"), logging.Handler(logging.INFO)
    handler.emit = lambda record: note(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
