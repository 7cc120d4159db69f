"""Commands where the system is another one: no fork, no `fcntl`, files that cannot be replaced, narrow consoles."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import write_tale

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks up in /proc which files are mapped")
def test_a_run_without_what_other_systems_lack(tmp_path: Path) -> None:
    folder = tmp_path / "mit Leerzeichen und ß"
    folder.mkdir()
    write_tale(folder).joinpath("tale.txt").rename(folder / "text.txt")
    process = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", str(ROOT / "tests/assets/other_system.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        check=False,
    )
    output, errors = process.stdout.decode("cp1252"), process.stderr.decode("cp1252")
    assert process.returncode == 0, output + errors
    assert "Warning" not in output + errors
    assert "meine Läufe" in output
    with (folder / "meine Läufe №1" / "Suche" / "grid.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished", "finished"]
