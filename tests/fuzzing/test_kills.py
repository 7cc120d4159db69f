"""`kill -9` at any moment costs the updates since the last checkpoint and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

POINTS = 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_killed_at_twenty_points_of_all_stages_and_taken_up_again(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_runs.py")
    line = [sys.executable, str(script), str(tmp_path), str(POINTS), "7"]
    process = subprocess.run(line, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    points = [row for row in process.stdout.splitlines() if row.endswith(": equal")]
    assert len(points) == POINTS
    for stage in ("prepare", "check", "overfit", "lr_find", "grid", "fit", "export"):
        assert any(f" {stage}: " in point for point in points)
    assert any("middle of a checkpoint" in point for point in points)
