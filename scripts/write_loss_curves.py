"""Regenerate tests/assets/losses.csv after an intended change of the numerics.

    python scripts/write_loss_curves.py

The test that checks the curves also writes them, so that both use the same data, weights and settings.
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
    print("check the change: git diff --stat tests/assets/losses.csv")
    return code.returncode


if __name__ == "__main__":
    sys.exit(main())
