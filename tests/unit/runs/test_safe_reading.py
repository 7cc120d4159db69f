"""What a run folder may hold."""

from pathlib import Path

import pytest

from torch_linguist.errors import LinguistError
from torch_linguist.runs.safe_reading import check_contained


def test_only_the_links_of_a_tracker_may_lead_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    logs = run / "wandb" / "offline-run-1" / "logs"
    logs.mkdir(parents=True)
    (run / "checkpoints").mkdir()
    (logs / "debug-core.log").symlink_to(tmp_path / "elsewhere.log")
    (run / "latest").symlink_to("checkpoints")
    check_contained(run)
    link = run / "checkpoints" / "wandb"
    link.symlink_to(tmp_path)
    with pytest.raises(LinguistError, match="outside the run folder"):
        check_contained(run)
    link.unlink()
    (run / "wandb").rename(tmp_path / "moved")
    (run / "wandb").symlink_to(tmp_path / "moved")
    with pytest.raises(LinguistError, match="wandb is a link"):
        check_contained(run)
