"""The profile of a training: its table, its trace, its pictures, and that it changes nothing."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from torch_linguist.model import LanguageModel
from torch_linguist.report.loggers import LoggedRun, TensorBoardLogger
from torch_linguist.report.loggers.tensorboard import event_folder
from torch_linguist.trainer import Fit, TrainingContext
from torch_linguist.trainer.callbacks.profiling import COLUMNS

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "profile.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def updates_in(folder: Path) -> int:
    events = json.loads((folder / "profile" / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    return sum(event.get("name") == "update" and event.get("cat") == "user_annotation" for event in events)


def test_a_profile_names_the_matrix_products(
    build_model: ModelBuilder, make_context: ContextBuilder, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_steps": 20, "eval_every": 20, "eval_tokens": 40}
    observer, profiled = TensorBoardLogger(), build_model("transformer", 50, dropout=0.1)
    observer.start(LoggedRun(tmp_path / "tb"))
    Fit(profiled, make_context(profile=True, **settings), 0.01, 0.0, tmp_path, [observer]).run()
    observer.close()
    assert updates_in(tmp_path) == 5
    rows = rows_of(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    names = {row["operation"]: row for row in rows}
    assert "aten::mm" in names
    assert names["update"]["calls"] == "1.0"
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    whole = float(names["update"]["total_ms"])
    assert sum(float(row["self_ms"]) for row in rows) == pytest.approx(whole, rel=0.05)
    events = EventAccumulator(str(event_folder(tmp_path / "tb")), size_guidance={"tensors": 0, "images": 0}).Reload()
    text = events.Tensors("profile/operations/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "aten::mm" in text
    (picture,) = events.Images("profile/operations")
    assert (picture.step, picture.width > 500, picture.height > 300) == (15, True, True)
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")

    plain = build_model("transformer", 50, dropout=0.1)
    (tmp_path / "plain").mkdir()
    Fit(plain, make_context(**settings), 0.01, 0.0, tmp_path / "plain").run()
    assert all(torch.equal(one, other) for one, other in zip(profiled.parameters(), plain.parameters(), strict=True))
    assert not (tmp_path / "plain" / "profile").exists()


@pytest.mark.parametrize(
    ("settings", "profiled"),
    [
        ({"max_steps": 1}, 1),
        ({"max_steps": 3}, 3),
        ({"max_steps": 12}, 5),
        ({"max_tokens": 128}, 3),  # Known after the first update to be four.
        ({"max_steps": 20, "eval_every": 12}, 2),  # A validation ends it.
    ],
)
def test_a_short_training_is_profiled_as_far_as_it_goes(
    settings: dict[str, Any], profiled: int, build_model: ModelBuilder, make_context: ContextBuilder, tmp_path: Path
) -> None:
    settings = {"eval_tokens": 40, "eval_every": 100} | settings
    Fit(build_model("lstm", 50), make_context(profile=True, **settings), 0.01, 0.0, tmp_path).run()
    assert updates_in(tmp_path) == profiled
