"""`kill -9` at any moment costs the updates since the last checkpoint and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

POINTS = 14


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_killed_runs_end_as_those_that_were_never_killed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """`--fuzz-rounds` is the number of further kills, many of them of one run."""
    script = Path(__file__).with_name("killed_runs.py")
    kills, seed = (str(request.config.getoption(f"--fuzz-{name}")) for name in ("rounds", "seed"))
    line = [sys.executable, str(script), str(tmp_path), str(POINTS), seed, kills]
    process = subprocess.run(line, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    points = [row for row in process.stdout.splitlines() if row.endswith(": equal") and not row.startswith("chain")]
    assert len(points) == POINTS
    for stage in ("prepare", "check", "overfit", "lr_find", "grid", "fit", "export"):
        assert any(f" {stage}: " in point for point in points)
    assert any("middle of a checkpoint" in point for point in points)
