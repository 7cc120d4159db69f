"""The six steps of a run, from a corpus to an exported model, in one folder."""

import math
import shlex
import signal
import time
from contextlib import suppress
from typing import Any

import torch
from rich.console import Console

from torch_linguist.checkpoint import load_model, save_checkpoint
from torch_linguist.checkpoint.storage import TRUSTED
from torch_linguist.data import prepare
from torch_linguist.distributed import data_parallel, processes
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation import Score
from torch_linguist.export import export_jit
from torch_linguist.generation import generate
from torch_linguist.model import LanguageModel
from torch_linguist.pipeline.final_scores import hyperparameters, score_baselines, score_splits
from torch_linguist.pipeline.plan import Plan
from torch_linguist.pipeline.progress import Progress
from torch_linguist.pipeline.run_summary import artifacts, counting_facts, header_facts, training_facts
from torch_linguist.pipeline.tuning import Tuning
from torch_linguist.report import (
    TensorBoardObserver,
    TerminalObserver,
    closing_table,
    new_summary,
)
from torch_linguist.runs.files import write_json, write_text
from torch_linguist.runs.lock import run_lock
from torch_linguist.trainer import STAGES, CallbackList, Fit, TrainingContext
from torch_linguist.trainer.callbacks.checkpointing import newest_state
from torch_linguist.trainer.context import resolved
from torch_linguist.trainer.device import choose_device, choose_precision, denormals_flushed
from torch_linguist.trainer.initialization import start_from_counts
from torch_linguist.trainer.interrupt import Interrupted, StopRequest, graceful_interrupt
from torch_linguist.trainer.randomness import seed_everything

COUNTED_STAGES = ("check", "fit", "export")
"""The stages of a model that counts: it has no rates to find, and counting is learning by heart."""


def run(plan: Plan, console: Console | None = None) -> dict[str, Any]:
    """Carries out a plan; the run folder holds every artifact afterwards.

    Args:
        plan: what to do.
        console: where a person watches; None for standard output.

    Returns:
        What `summary.json` holds; its `status` is `finished` or `interrupted`.

    Raises:
        LinguistError: something the user can mend; `summary.json` then says `failed`.
    """
    return Run(plan, console).carry_out()


class Run:
    """A run in progress.

    Args:
        plan: what to do.
        console: where a person watches.
    """

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        self.plan, self.folder = plan, plan.folder
        self.terminal = TerminalObserver(console)
        self.observer = CallbackList([self.terminal])
        self.summary = new_summary(plan.names, plan.seed)
        if plan.config_text:
            self.summary["command"] = shlex.join(["tl-train", "--config-dir", str(plan.folder)])
        self.scores: dict[str, dict[str, Score]] = {}
        self.steps = 0

    def carry_out(self) -> dict[str, Any]:
        """Runs the stages and writes the summary, whatever happens."""
        with run_lock(self.folder):
            failed = True
            try:
                with graceful_interrupt() as stop, denormals_flushed():
                    self._carry_out(stop)
                failed = False
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt)
                self.summary["status"] = "interrupted" if interrupted else "failed"
                self.summary["signal"] = getattr(error, "signal_number", signal.SIGINT) if interrupted else None
                self.summary["error"] = f"{type(error).__name__}: {error}"
                raise
            finally:
                self._close(failed)
        closing_table(self.terminal.console, self.scores, self.summary["artifacts"], self.folder)
        return self.summary

    def _carry_out(self, stop: StopRequest) -> None:
        plan = self.plan
        with stop.ending_at_once():
            # Before the first stage there is nothing to save, and a token cache is built as a whole or not at all.
            if plan.config_text and (not plan.resume or plan.changes):
                write_text(self.folder / "config.yaml", plan.config_text)
            self._prepare(stop)
        self.tuning = Tuning(plan, self.model, self.context, self.progress, self.observer, stop)
        # Where the long training has not begun, the first signal ends the stage, which can be done again; the second
        # ends whatever is going on.
        with suppress(Interrupted):
            self._run_stages(stop)
        self.summary["status"] = "interrupted" if stop() else "finished"
        self.summary["signal"] = stop.signal_number or None

    def _close(self, failed: bool) -> None:
        """Says in the folder how the run ended."""
        self.observer.close()
        self.summary["artifacts"] = artifacts(self.folder)
        try:
            write_json(self.folder / "summary.json", self.summary)
        except OSError as error:
            # What made the run fail matters more than that this could not be written either.
            if not failed:
                raise LinguistError(
                    f"{self.folder}/summary.json: cannot be written ({error.strerror}); make room, then go on with "
                    f"tl-train resume={self.folder}"
                ) from error

    def _prepare(self, stop: StopRequest) -> None:
        """Reads the corpus and builds the untrained model."""
        plan = self.plan
        device = choose_device(processes.local_device(plan.trainer.device))
        precision = processes.broadcast_object(lambda: choose_precision(plan.trainer.precision, device))
        settings = resolved(plan.trainer, device, precision)
        self.progress = Progress(self.folder, self.observer, self.summary["stages"], plan.resume)
        with processes.main_process_first():  # One builds the token cache.
            corpus = prepare(plan.corpus, plan.tokenizer_trainer)
        self.progress.begin(corpus, plan.changes)
        corpus.tokenizer.save(self.folder / "tokenizer.json")
        seed_everything(plan.seed)
        self.model = plan.make_model(vocab_size=corpus.tokenizer.vocab_size)
        self.model.prepare_vocabulary(torch.from_numpy(corpus.token_counts()))
        self.model.to(device)
        data_parallel.broadcast_weights(self.model)
        self.context = TrainingContext(
            corpus=corpus,
            make_optimizer=plan.make_optimizer,
            schedule=plan.schedule,
            settings=settings,
            score=plan.score,
            seed=plan.seed,
            decay_all=plan.decay_all,
            checkpoint=plan.checkpoint,
            stop_request=stop,
        )
        self.summary |= {
            "vocab_size": corpus.tokenizer.vocab_size,
            "parameters": self.model.num_parameters(),
            "device": str(device),
            "precision": settings.precision,
            "processes": processes.world_size(),
        }
        self.observer.header(header_facts(plan, corpus, self.model, settings))
        if plan.changes:
            self.observer.noted(f"goes on with {', '.join(plan.changes)}")

    def _run_stages(self, stop: StopRequest) -> None:
        counted = self.model.is_counted
        for stage in STAGES:
            # `check` sees a model that knows nothing, all others one that knows the frequencies.
            if stage == "overfit":
                self._start()
            if stage not in self.plan.stages or (counted and stage not in COUNTED_STAGES):
                continue
            if (counted or stage == "export") and not processes.is_main_process():
                continue
            if stop() and not (stage == "export" and self.scores):
                continue
            if stage == "fit" and counted:
                self._count(stop)
            elif stage == "fit":
                self._fit(stop)
            elif stage == "export":
                self._export()
            else:
                self.tuning.run(stage)

    def _start(self) -> None:
        """Tells the model what the counts of the corpus tell."""
        begin = time.perf_counter()
        start_from_counts(self.model, self.context.corpus, self.context.settings)
        # Sums of other orders than on the first process would make another embedding.
        data_parallel.broadcast_weights(self.model)
        if self.context.settings.cooccurrence_start:
            self.observer.noted(f"embedding from co-occurrences in {time.perf_counter() - begin:.1f} s")

    def _fit(self, stop: StopRequest) -> None:
        found = newest_state(self.folder / "checkpoints") if self.plan.resume else None
        last, step = None, None
        if found is not None:
            last, saved = found[0], found[1]["progress"]
            step = int(saved["step"])
            self.tuning.lr = self.plan.lr or float(saved["lr"])
            decay = self.plan.weight_decay
            self.tuning.weight_decay = float(saved["weight_decay"]) if decay is None else decay
        lr, weight_decay = self.tuning.learning_rate(), self.tuning.decay()
        if processes.is_main_process():
            self.observer.add(TensorBoardObserver(self.folder / "tensorboard", step))
        tokens = self.context.corpus.tokenizer.tokens
        if step is None:
            self.observer.model_ready(self.model, tokens)
        about = f"optim.lr={lr:.3g} optim.weight_decay={weight_decay:g}"
        with self.progress.stage("fit", about if step is None else f"{about}, from step {step}") as finish:
            training = Fit(
                self.model,
                self.context,
                lr,
                weight_decay,
                self.folder,
                self.observer,
                self._sample if processes.is_main_process() else None,
                stop,
                last,
                self.plan.recorded_progress,
            )
            result = training.run()
            processes.leave_process_group()
            from torch_linguist.report.plots import plot_curves  # matplotlib: no update waits for it

            plot_curves(self.folder / "metrics.csv", self.folder / "curves.png")
            self.summary |= {
                "lr": lr,
                "weight_decay": weight_decay,
                "compile": result.compiled,
                "train": training_facts(result, self.context.settings.device),
            }
            verdict = f"valid perplexity {math.exp(min(result.best_loss, 700)):.2f} at update {result.best_step:,}"
            speed = f"{result.tokens:,} tokens at {result.tokens_per_second:,.0f} a second"
            share = result.checkpoint_seconds / max(result.seconds, 1e-9)
            verdict = f"{verdict} of {result.steps:,}; {speed}; checkpoints {share:.1%} of the time; {result.reason}"
            finish(verdict, {"reason": result.reason}, done=result.status == "finished")
        self.steps = result.steps
        self._score(stop)

    def _count(self, stop: StopRequest) -> None:
        """The stage `fit` of a model that counts."""
        corpus = self.context.corpus
        facts = self.progress.done("fit")
        if facts:
            self.progress.take_over("fit")
            self.summary |= {"parameters": facts["parameters"], "train": facts["train"]}
        else:
            with self.progress.stage("fit", "counting") as finish:
                begin = time.perf_counter()
                self.model.fit_counts(corpus.train.ids, corpus.tokenizer.eos_id)
                seconds = time.perf_counter() - begin
                save_checkpoint(self.folder / "checkpoints" / "best.pt", self.model, {"tokens": len(corpus.train)})
                parameters, train = self.model.num_parameters(), counting_facts(len(corpus.train), seconds)
                self.summary |= {"parameters": parameters, "train": train}
                verdict = f"{parameters:,} n-grams of {len(corpus.train):,} tokens"
                finish(verdict, {"parameters": parameters, "train": train})
            self.observer.sampled(self._sample(self.model), 0)
        self._score(stop)

    def _score(self, stop: StopRequest) -> None:
        """Scores the best model on valid and test, beside the baselines; a run that shall end does without these."""
        if not processes.is_main_process():
            return
        best, corpus = self._best_model(), self.context.corpus
        name = self.plan.names.get("model", type(best).__name__)
        own = score_splits(best, corpus, self.plan.score)
        baselines = {} if stop() else score_baselines(corpus, self.plan.score, best)
        self.scores = {name: own, **baselines}
        for split, measured in own.items():
            self.summary[split] = measured.as_dict()
        for baseline, splits in baselines.items():
            self.summary["baselines"][baseline] = {split: found.as_dict() for split, found in splits.items()}
        metrics = {f"final/{split}_perplexity": found.perplexity for split, found in own.items()}
        self.observer.finished(best, corpus.tokenizer.tokens, hyperparameters(self.summary, best), metrics, self.steps)

    def _best_model(self) -> LanguageModel:
        own = type(self.model).__module__.partition(".")[0] + "."
        best = load_model(self.folder / "checkpoints" / "best.pt", trusted=(*TRUSTED, own))
        return best.to(self.context.settings.device)

    def _sample(self, model: LanguageModel) -> list[tuple[str, str]]:
        settings = self.plan.sample
        return [
            (
                prompt,
                generate(
                    model,
                    self.context.corpus.tokenizer,
                    prompt,
                    max_tokens=settings.tokens,
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    seed=settings.seed,
                )[0],
            )
            for prompt in settings.prompts
        ]

    def _export(self) -> None:
        before = self.progress.done("export")
        if before is not None and before.get("steps") == self.steps and (self.folder / "model.jit").is_file():
            self.progress.take_over("export")
            return
        with self.progress.stage("export", "to TorchScript, compared with the eager model") as finish:
            kept = (
                "model",
                "data",
                "tokenizer",
                "parameters",
                "seed",
                "lr",
                "weight_decay",
                "versions",
                "valid",
                "test",
            )
            settings = {key: self.summary[key] for key in kept}
            model, path = self._best_model().cpu(), self.folder / "model.jit"
            report = export_jit(model, self.context.corpus.tokenizer, path, settings)
            verdict = f"model.jit, {report.mebibytes:.1f} MiB, largest difference {report.difference:.1g} nats"
            facts = {"difference": report.difference, "mebibytes": report.mebibytes, "steps": self.steps}
            finish(verdict, facts)
