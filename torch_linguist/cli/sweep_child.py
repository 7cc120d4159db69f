"""`tl-train` as a run of a sweep: it saves its state and ends when the sweep is killed."""

import sys

from torch_linguist.cli.train import main
from torch_linguist.runs.platform import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    sys.exit(main())
