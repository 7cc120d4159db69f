"""The book of records: every entry composes, its page is up to date, and a replay reaches a verdict."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from torch_linguist.config.composition import compose_config

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "check_record.py"
ENTRIES = sorted((ROOT / "records").glob("*.yaml"))


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_the_overrides_of_an_entry_compose(path: Path) -> None:
    record = yaml.safe_load(path.read_text(encoding="utf-8"))
    compose_config([str(override) for override in record["overrides"]])
    assert set(record["scores"]) == {"valid", "test"}
    assert ("evaluate" in record) == ("scored_model" in record) == (record["kind"] == "adaptive")


def test_the_page_is_written_from_the_entries() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--check-docs"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_entry_is_named() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nothing: no such record; existing records: sotu_" in done.stderr
