"""Execution of a run: its stages in their order, from a corpus to an exported model, in one folder."""

import shlex
import signal
from contextlib import suppress
from typing import Any

import torch
from rich.console import Console

from torch_linguist.data import prepare
from torch_linguist.data.suitability import corpus_notes
from torch_linguist.distributed import processes
from torch_linguist.distributed.data_parallel import broadcast_weights
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.scoring import check_stride
from torch_linguist.pipeline.plan import Plan
from torch_linguist.pipeline.progress import Progress
from torch_linguist.pipeline.run_context import RunContext, RunResults
from torch_linguist.pipeline.run_summary import artifacts, header_facts
from torch_linguist.pipeline.stages import Stage, arrange
from torch_linguist.report import TerminalObserver, closing_table, new_summary
from torch_linguist.runs.devices import choose_device
from torch_linguist.runs.files import write_json, write_text
from torch_linguist.runs.lock import run_lock
from torch_linguist.trainer import CallbackList, TrainingContext
from torch_linguist.trainer.callbacks.distillation import check_distillation
from torch_linguist.trainer.callbacks.temperature_scaling import check_temperature_scaling
from torch_linguist.trainer.context import resolved
from torch_linguist.trainer.device import checked_device, choose_precision, denormals_flushed
from torch_linguist.trainer.interrupt import Interrupted, StopRequest, graceful_interrupt
from torch_linguist.trainer.randomness import seed_everything


def run(plan: Plan, console: Console | None = None) -> dict[str, Any]:
    """Execute a plan; afterwards the run folder holds every artifact.

    Args:
        plan: what to do.
        console: console for the terminal output; None for standard output.

    Returns:
        The content of `summary.json`; its `status` is `finished` or `interrupted`.

    Raises:
        LinguistError: an error that the user can fix; `summary.json` then says `failed`.
    """
    return Run(plan, console).execute()


class Run:
    """A run in progress.

    Args:
        plan: what to do.
        console: console for the terminal output; None for standard output.
    """

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        self.plan, self.folder = plan, plan.folder
        self.terminal = TerminalObserver(console)
        self.callbacks = CallbackList([self.terminal, *plan.callbacks])
        self.results = RunResults.given(plan)
        self.summary = new_summary(plan.names, plan.seed)
        if plan.start is not None:
            self.summary["init_from"] = plan.start.source
        if plan.config_text:
            self.summary["command"] = shlex.join(["tl-train", "--config-dir", str(plan.folder)])

    def execute(self) -> dict[str, Any]:
        """Run the stages and write the summary, whatever happens."""
        with run_lock(self.folder):
            failed = True
            try:
                with graceful_interrupt() as stop, denormals_flushed():
                    self._execute(stop)
                failed = False
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt)
                self.summary["status"] = "interrupted" if interrupted else "failed"
                self.summary["signal"] = getattr(error, "signal_number", signal.SIGINT) if interrupted else None
                self.summary["error"] = f"{type(error).__name__}: {error}"
                raise
            finally:
                self._close(failed)
        closing_table(
            self.terminal.console,
            self.results.scores,
            self.summary["artifacts"],
            self.folder,
            self.results.verdict,
            self.notes,
        )
        return self.summary

    def _execute(self, stop: StopRequest) -> None:
        plan = self.plan
        with stop.ending_at_once():
            # Before the first stage there is nothing to save, and a token cache is built as a whole or not at all.
            if plan.config_text and (not plan.resume or plan.changes):
                write_text(self.folder / "config.yaml", plan.config_text)
            context = self._prepare(stop)
        # Until the long training begins, the first signal ends the current stage, which can be repeated. A second
        # signal ends whatever is running.
        with suppress(Interrupted):
            for stage in arrange(plan.stages, plan.resume):
                if self._is_due(stage, context):
                    self._run_stage(stage, context)
        self.summary["status"] = "interrupted" if stop() else "finished"
        self.summary["signal"] = stop.signal_number or None

    def _close(self, failed: bool) -> None:
        """Record in the folder how the run ended."""
        self.summary["artifacts"] = artifacts(self.folder, self.plan.stages)
        self.callbacks.run_ended(self.folder, self.summary["artifacts"])
        self.callbacks.close()
        try:
            write_json(self.folder / "summary.json", self.summary)
        except OSError as error:
            # The reason why a run failed matters more than a summary that cannot be written.
            if not failed:
                raise LinguistError(
                    f"{self.folder}/summary.json: cannot be written ({error.strerror}); free some space, then continue "
                    f"with tl-train resume={self.folder}"
                ) from error

    def _prepare(self, stop: StopRequest) -> RunContext:
        """Read the corpus and build the untrained model."""
        plan = self.plan
        device_name = processes.local_device(plan.trainer.device)
        choose_device(device_name)  # A device that is missing is reported before any work.
        self.progress = Progress(self.folder, self.callbacks, self.summary["stages"], plan.resume)
        with processes.main_process_first():  # The main process builds the token cache.
            kept = plan.start.tokenizer if plan.start is not None else None
            corpus = prepare(plan.corpus, plan.tokenizer_trainer, tokenizer=kept)
        self.progress.begin(corpus, plan.changes)
        corpus.tokenizer.save(self.folder / "tokenizer.json")
        seed_everything(plan.seed)
        model = plan.make_model(vocab_size=corpus.tokenizer.vocab_size)
        check_stride(model, plan.score.stride)
        check_distillation(model, plan.trainer.distill)
        check_temperature_scaling(model, plan.trainer.temperature_scaling)
        model.prepare_vocabulary(torch.from_numpy(corpus.token_counts()))
        device = checked_device(device_name, model)
        precision = processes.broadcast_object(lambda: choose_precision(plan.trainer.precision, device))
        settings = resolved(plan.trainer, device, precision)
        model.to(device)
        broadcast_weights(model)
        self.summary |= {
            "vocab_size": corpus.tokenizer.vocab_size,
            "parameters": model.num_parameters(),
            "device": str(device),
            "precision": settings.precision,
            "processes": processes.world_size(),
        }
        self.callbacks.header(header_facts(plan, corpus, model, settings))
        self.notes = corpus_notes(corpus)
        for note in self.notes:
            self.callbacks.noted(note)
        if plan.changes:
            self.callbacks.noted(f"continues with {', '.join(plan.changes)}")
        training = TrainingContext(
            corpus=corpus,
            make_optimizer=plan.make_optimizer,
            schedule=plan.schedule,
            settings=settings,
            score=plan.score,
            seed=plan.seed,
            decay_all=plan.decay_all,
            layer_decay=plan.layer_decay,
            decay_embeddings=plan.decay_embeddings,
            checkpoint=plan.checkpoint,
            stop_request=stop,
        )
        return RunContext(plan, model, training, self.callbacks, stop, self.summary, self.results)

    def _is_due(self, stage: Stage, context: RunContext) -> bool:
        """Return whether a stage runs in this process."""
        if context.counted and not stage.for_counted:
            return False
        if (context.counted or stage.main_process_only) and not processes.is_main_process():
            return False
        return not context.stop() or stage.runs_after_interrupt(context)

    def _run_stage(self, stage: Stage, context: RunContext) -> None:
        """Run a stage, or restore what an earlier part of the run found."""
        facts = self.progress.done(stage.name)
        if facts is not None and stage.is_done(context, facts):
            self.progress.take_over(stage.name)
            stage.restore(context, facts)
        elif not stage.is_needed(context):
            return
        else:
            stage.prepare(context)
            result = self.progress.run(stage, context) if stage.announced else stage.run(context)
            for note in result.notes:
                self.callbacks.noted(note)
            if result.error:
                raise LinguistError(result.error)
        stage.conclude(context)
