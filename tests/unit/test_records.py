"""The book of records: every entry composes, its page is up to date, and a replay reaches a verdict."""

import shutil
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
    assert set() < record["scores"].keys() <= {"valid", "test"}
    assert ("evaluate" in record) == ("scored_model" in record) == (record["kind"] == "adaptive")


def test_the_page_is_written_from_the_entries() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--check-docs"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_entry_in_nats_and_with_members(tmp_path: Path) -> None:
    entry = {
        "track": "characters, 100 s",
        "kind": "adaptive",
        "unit": "nats",
        "version": "0.2.0",
        "overrides": ["model=lstm"],
        "members": {"ngram": ["model=ngram"]},
        "evaluate": ["--mix", "--cache", "500"],
        "scored_model": "adapted mixture",
        "machine": "a laptop",
        "gflops": 50,
        "tokens_per_second": 9000,
        "scores": {"valid": 1.434},
        "tolerance": 0.01,
    }
    scripts, records = tmp_path / "scripts", tmp_path / "records"
    scripts.mkdir()
    records.mkdir()
    (tmp_path / "docs").mkdir()
    copy = shutil.copy(SCRIPT, scripts)
    (records / "characters.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
    subprocess.run([sys.executable, str(copy), "--write-docs"], check=True)
    page = (tmp_path / "docs" / "records.md").read_text(encoding="utf-8")
    assert "| 1.434 nats |  | not quoted | 9,000 |" in page
    assert "tl-train model=ngram name=ngram\ntl-eval outputs/run outputs/ngram --mix --cache 500" in page


def test_an_unknown_entry_is_named() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nothing: no such record; existing records: " in done.stderr
    assert "sotu_default" in done.stderr
