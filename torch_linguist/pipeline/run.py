"""The six steps of a run, from a corpus to an exported model, in one folder."""

import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console

from torch_linguist.data import prepare
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation import Score
from torch_linguist.export import export_jit
from torch_linguist.generation import generate
from torch_linguist.model import CountedModel, LanguageModel
from torch_linguist.pipeline.closing import hyperparameters, score_baselines, score_splits
from torch_linguist.pipeline.facts import artifacts, counting_facts, header_facts, training_facts
from torch_linguist.pipeline.plan import Plan
from torch_linguist.report import (
    TensorBoardObserver,
    TerminalObserver,
    closing_table,
    new_summary,
    plot_curves,
    plot_grid,
    plot_lr_finder,
    plot_overfit,
)
from torch_linguist.trainer import (
    STAGES,
    Fit,
    Observers,
    Setup,
    check_untrained,
    find_learning_rate,
    load_model,
    overfit,
    read_checkpoint,
    run_grid,
    save_checkpoint,
)
from torch_linguist.trainer.checkpoint import TRUSTED
from torch_linguist.trainer.device import choose_device, choose_precision, denormals_flushed
from torch_linguist.trainer.interrupt import StopRequest, graceful_interrupt
from torch_linguist.trainer.randomness import seed_everything
from torch_linguist.trainer.run_folder import write_json, write_text
from torch_linguist.trainer.setup import resolved

COUNTED_STAGES = ("check", "fit", "export")
"""The stages of a model that counts: it has no rates to find, and counting is learning by heart."""

UNTUNED_WEIGHT_DECAY = 0.01
"""Of a run whose weight decay is `auto` and whose stages leave the grid out."""


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
        self.observer = Observers([self.terminal])
        self.summary = new_summary(plan.names, plan.seed)
        if plan.config_text:
            self.summary["command"] = shlex.join(["tl-train", "--config-dir", str(plan.folder)])
        self.lr, self.weight_decay = plan.lr, plan.weight_decay
        self.ranked: list[float] = []
        self.scores: dict[str, dict[str, Score]] = {}

    def carry_out(self) -> dict[str, Any]:
        """Runs the stages and writes the summary, whatever happens."""
        try:
            with graceful_interrupt() as stop, denormals_flushed():
                if self.plan.config_text and not self.plan.resume:
                    write_text(self.folder / "config.yaml", self.plan.config_text)
                self._prepare()
                self._run_stages(stop)
                self.summary["status"] = "interrupted" if stop() else "finished"
                self.summary["signal"] = stop.signal_number or None
        except BaseException as error:
            self.summary["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self.summary["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.observer.close()
            self.summary["artifacts"] = artifacts(self.folder)
            write_json(self.folder / "summary.json", self.summary)
        closing_table(self.terminal.console, self.scores, self.summary["artifacts"], self.folder)
        return self.summary

    def _prepare(self) -> None:
        """Reads the corpus and builds the untrained model."""
        plan = self.plan
        device = choose_device(plan.trainer.device)
        settings = resolved(plan.trainer, device, choose_precision(plan.trainer.precision, device))
        corpus = prepare(plan.corpus, plan.tokenizer_trainer)
        corpus.tokenizer.save(self.folder / "tokenizer.json")
        seed_everything(plan.seed)
        self.model = plan.make_model(vocab_size=corpus.tokenizer.vocab_size)
        self.model.prepare_vocabulary(torch.from_numpy(corpus.token_counts()))
        self.model.to(device)
        self.setup = Setup(
            corpus=corpus,
            make_optimizer=plan.make_optimizer,
            schedule=plan.schedule,
            settings=settings,
            score=plan.score,
            seed=plan.seed,
            decay_all=plan.decay_all,
        )
        self.summary |= {
            "vocab_size": corpus.tokenizer.vocab_size,
            "parameters": self.model.num_parameters(),
            "device": str(device),
            "precision": settings.precision,
        }
        self.observer.header(header_facts(plan, corpus, self.model, settings))

    def _run_stages(self, stop: StopRequest) -> None:
        counted = isinstance(self.model, CountedModel)
        steps: dict[str, Callable[[], None]] = {
            "check": self._check,
            "overfit": self._overfit,
            "lr_find": self._lr_find,
            "grid": self._grid,
            "fit": self._count if counted else lambda: self._fit(stop),
            "export": self._export,
        }
        before_fit = STAGES[: STAGES.index("fit")]
        for stage in STAGES:
            wanted = stage in self.plan.stages and not (self.plan.resume and stage in before_fit)
            wanted = wanted and (not counted or stage in COUNTED_STAGES)
            if wanted and (not stop() or (stage == "export" and self.scores)):
                steps[stage]()

    @contextmanager
    def _stage(self, stage: str, about: str) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
        """Announces a stage; the block hands its verdict to what it is given."""
        begin = time.perf_counter()
        self.observer.stage_started(stage, about)

        def finish(verdict: str, facts: Mapping[str, Any]) -> None:
            seconds = time.perf_counter() - begin
            self.summary["stages"][stage] = {"seconds": round(seconds, 3), **facts}
            self.observer.stage_finished(stage, verdict, seconds)

        yield finish

    def _report_loss(self, stage: str) -> Callable[[float, float], None]:
        return lambda fraction, loss: self.observer.progressed(stage, fraction, {"train_loss": loss})

    def _check(self) -> None:
        with self._stage("check", "the untrained loss against ln(vocabulary)") as finish:
            result = check_untrained(self.model, self.setup, self.plan.check)
            write_json(self.folder / "check.json", asdict(result))
            finish(f"untrained loss {result.loss:.3f}, ln(vocabulary) {result.expected:.3f}", asdict(result))
        if not result.passed:
            self.observer.noted(
                f"check: the untrained loss is more than {self.plan.check.tolerance:.0%} away from ln(vocabulary): "
                "its first logits are too large, or a target leaks into the input"
            )

    def _overfit(self) -> None:
        settings = self.plan.overfit
        table = self.folder / "overfit.csv"
        with self._stage("overfit", "learning a few batches by heart") as finish:
            result = overfit(self.model, self.setup, settings, table, self._report_loss("overfit"))
            plot_overfit(table, self.folder / "overfit.png", settings.target)
            verdict = f"loss {result.first_loss:.2f} → {result.loss:.3f} in {result.steps} updates"
            finish(f"{verdict} on {result.tokens} tokens", asdict(result))
        if not result.passed:
            self.observer.noted(
                f"overfit: the loss stayed above {settings.target:g}; "
                "give it more updates (overfit.max_steps) or another overfit.lr, or look for a fault in the model"
            )

    def _lr_find(self) -> None:
        if self.plan.lr is not None:
            self.ranked = [self.plan.lr]
            return
        settings, folder = self.plan.lr_find, self.folder
        with self._stage("lr_find", "range test and short trials") as finish:
            result = find_learning_rate(self.model, self.setup, settings, folder, self._report_loss("lr_find"))
            trials = folder / "lr_trials.csv" if result.trials else None
            plot_lr_finder(
                folder / "lr_finder.csv", folder / "lr_finder.png", result.test.suggestion, result.lr, trials
            )
            self.lr, self.ranked = result.lr, result.ranked
            suggested = f"{result.test.suggestion:.2g}" if result.test.suggestion else "nothing"
            verdict = f"learning rate {result.lr:.2g} (suggested {suggested}, {len(result.trials)} trials)"
            finish(verdict, {"lr": result.lr, "suggestion": result.test.suggestion, "ranked": result.ranked})
        if result.test.suggestion is None:
            self.observer.noted(
                f"lr_find: the range test suggests nothing ({result.test.reason}); "
                f"the trials went around lr_find.default={settings.default}"
            )

    def _grid(self) -> None:
        if self.plan.weight_decay is not None:
            return
        settings, table = self.plan.grid, self.folder / "grid.csv"
        lrs = self.ranked or [self._learning_rate()]
        points = len(settings.weight_decay) * min(len(lrs), settings.learning_rates)
        with self._stage("grid", f"{points} short trainings: weight decay x learning rate") as finish:
            result = run_grid(self.model, self.setup, settings, lrs, table, self._report_loss("grid"))
            plot_grid(table, self.folder / "grid.png")
            if result.best is None:
                finish(f"all {points} points diverged", {"lr": None, "weight_decay": None})
            else:
                self.lr, self.weight_decay = result.best.lr, result.best.weight_decay
                verdict = f"best: optim.lr={self.lr:.3g} optim.weight_decay={self.weight_decay:g}"
                facts = {"lr": self.lr, "weight_decay": self.weight_decay, "points": points}
                finish(f"{verdict}, valid loss {result.best.valid_loss:.4f}", facts)
        if result.best is None:
            raise LinguistError("grid: every point diverged (grid.csv); lower optim.lr or trainer.gradient_clip")

    def _learning_rate(self) -> float:
        if self.lr is None:
            self.lr = self.plan.lr_find.default
            self.observer.noted(f"optim.lr=auto without the stage lr_find: taking lr_find.default={self.lr}")
        return self.lr

    def _decay(self) -> float:
        if self.weight_decay is None:
            self.weight_decay = UNTUNED_WEIGHT_DECAY
            self.observer.noted(f"optim.weight_decay=auto without the stage grid: taking {self.weight_decay}")
        return self.weight_decay

    def _fit(self, stop: StopRequest) -> None:
        last = self.folder / "checkpoints" / "last.pt"
        step = None
        if self.plan.resume:
            progress = read_checkpoint(last)["progress"]
            step = int(progress["step"])
            self.lr = self.plan.lr or float(progress["lr"])
            self.weight_decay = float(progress["weight_decay"])
        lr, weight_decay = self._learning_rate(), self._decay()
        self.observer.add(TensorBoardObserver(self.folder / "tensorboard", step))
        tokens = self.setup.corpus.tokenizer.tokens
        if step is None:
            self.observer.model_ready(self.model, tokens)
        about = f"optim.lr={lr:.3g} optim.weight_decay={weight_decay:g}"
        with self._stage("fit", about if step is None else f"{about}, from step {step}") as finish:
            training = Fit(
                self.model,
                self.setup,
                lr,
                weight_decay,
                self.folder,
                self.observer,
                self._sample,
                stop,
                last if self.plan.resume else None,
                self.plan.pace,
            )
            result = training.run()
            plot_curves(self.folder / "metrics.csv", self.folder / "curves.png")
            self.summary |= {
                "lr": lr,
                "weight_decay": weight_decay,
                "train": training_facts(result, self.setup.settings.device),
            }
            verdict = f"valid perplexity {math.exp(min(result.best_loss, 700)):.2f} at update {result.best_step:,}"
            speed = f"{result.tokens:,} tokens at {result.tokens_per_second:,.0f} a second"
            finish(f"{verdict} of {result.steps:,}; {speed}; {result.reason}", {"reason": result.reason})
        self._score(result.steps)

    def _count(self) -> None:
        """The stage `fit` of a model that counts."""
        assert isinstance(self.model, CountedModel)
        corpus = self.setup.corpus
        with self._stage("fit", "counting") as finish:
            begin = time.perf_counter()
            self.model.fit_counts(corpus.train.ids, corpus.tokenizer.eos_id)
            seconds = time.perf_counter() - begin
            save_checkpoint(self.folder / "checkpoints" / "best.pt", self.model, {"tokens": len(corpus.train)})
            self.summary["parameters"] = self.model.num_parameters()
            self.summary["train"] = counting_facts(len(corpus.train), seconds)
            finish(f"{self.summary['parameters']:,} n-grams of {len(corpus.train):,} tokens", {})
        self.observer.sampled(self._sample(self.model), 0)
        self._score(0)

    def _score(self, steps: int) -> None:
        """Scores the best model on valid and test, beside the baselines."""
        best, corpus = self._best_model(), self.setup.corpus
        name = self.plan.names.get("model", type(best).__name__)
        baselines = score_baselines(corpus, self.plan.score, best)
        self.scores = {name: score_splits(best, corpus, self.plan.score), **baselines}
        for split, measured in self.scores[name].items():
            self.summary[split] = measured.as_dict()
        for baseline, splits in baselines.items():
            self.summary["baselines"][baseline] = {split: found.as_dict() for split, found in splits.items()}
        metrics = {f"final/{split}_perplexity": found.perplexity for split, found in self.scores[name].items()}
        self.observer.finished(best, corpus.tokenizer.tokens, hyperparameters(self.summary, best), metrics, steps)

    def _best_model(self) -> LanguageModel:
        own = type(self.model).__module__.partition(".")[0] + "."
        best = load_model(self.folder / "checkpoints" / "best.pt", trusted=(*TRUSTED, own))
        return best.to(self.setup.settings.device)

    def _sample(self, model: LanguageModel) -> list[tuple[str, str]]:
        settings = self.plan.sample
        return [
            (
                prompt,
                generate(
                    model,
                    self.setup.corpus.tokenizer,
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
        with self._stage("export", "to TorchScript, compared with the eager model") as finish:
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
            report = export_jit(model, self.setup.corpus.tokenizer, path, settings)
            verdict = f"model.jit, {report.mebibytes:.1f} MiB, largest difference {report.difference:.1g} nats"
            finish(verdict, {"difference": report.difference, "mebibytes": report.mebibytes})
