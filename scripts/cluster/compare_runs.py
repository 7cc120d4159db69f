"""Compare the losses of two runs row by row: exit code 0 if they differ by at most 1e-5 nats.

python scripts/cluster/compare_runs.py outputs/one outputs/two
"""

import csv
import sys
from pathlib import Path

TOLERANCE = 1e-5


def losses(run: Path) -> dict[tuple[int, str], float]:
    """Return the training and validation losses by update and column."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return {
            (int(row["step"]), name): float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if name in ("train_loss", "valid_loss") and value
        }


def main() -> int:
    first, second = (losses(Path(run)) for run in sys.argv[1:3])
    if first.keys() != second.keys() or not first:
        print(f"the runs recorded different updates: {len(first)} and {len(second)} losses")
        return 1
    worst = max(abs(first[key] - second[key]) for key in first)
    print(f"{len(first)} losses, largest difference {worst:.1e} nats")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
