"""Writes tests/assets/losses.csv anew, after a change of the numerics that was meant.

    python scripts/write_loss_curves.py

The test that holds the curves measures them, so that both have the same data, weights and settings.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEST = "tests/unit/trainer/test_loss_curves.py::test_the_curves_are_written_anew"


def main() -> int:
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", TEST]
    code = subprocess.run(command, cwd=ROOT, env=os.environ | {"TORCH_LINGUIST_WRITE_CURVES": "1"}, check=False)
    print("see what changed: git diff --stat tests/assets/losses.csv")
    return code.returncode


if __name__ == "__main__":
    sys.exit(main())
