"""Stage `export`: the best model as TorchScript, its outputs compared with those of the eager model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch_linguist.export import export_jit
from torch_linguist.pipeline.stages.stage import Stage, StageResult

if TYPE_CHECKING:
    from torch_linguist.pipeline.run_context import RunContext

KEPT = ("model", "data", "tokenizer", "parameters", "seed", "lr", "weight_decay", "versions", "valid", "test")
"""Entries of the summary that the exported file carries."""


@dataclass(frozen=True)
class ExportStage(Stage):
    """Exports the best model to `model.jit`. An interrupted run is exported too if it has been scored."""

    name = "export"
    title = "to TorchScript, compared with the eager model"
    requires = ("fit",)
    artifacts: ClassVar = {"jit": "model.jit"}
    for_counted = True
    main_process_only = True

    def is_done(self, context: "RunContext", facts: Mapping[str, Any]) -> bool:
        return facts.get("steps") == context.results.steps and (context.folder / "model.jit").is_file()

    def runs_after_interrupt(self, context: "RunContext") -> bool:
        return bool(context.results.scores)

    def run(self, context: "RunContext") -> StageResult:
        settings = {key: context.summary[key] for key in KEPT}
        model, tokenizer = context.best_model().cpu(), context.training.corpus.tokenizer
        report = export_jit(model, tokenizer, context.folder / "model.jit", settings)
        verdict = f"model.jit, {report.mebibytes:.1f} MiB, largest difference {report.difference:.1g} nats"
        facts = {"difference": report.difference, "mebibytes": report.mebibytes, "steps": context.results.steps}
        return StageResult(verdict, facts)
