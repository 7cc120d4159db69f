"""A build on disk that is killed at random points goes on where it was, to the same model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_linguist.model.ngram import NGramModel

OPTIONS = {"order": 4, "min_count": [1, 1, 2], "entropy_threshold": 1e-8, "quantize_bits": 8}

# Imports once, then forks one process for each attempt. An attempt is killed when it has had a random amount of
# processor time, so that other work on the machine does not matter. Prints the number of attempts, and
# that of finished steps when each was killed.
DRIVER = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np, torch
from torch_linguist.model.ngram import NGramModel

ids, built, generator, steps = sys.argv[1], Path(sys.argv[2]), random.Random(1), []
attempts = 0

def used(process):
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

while not built.exists():
    if not (child := os.fork()):
        model = NGramModel(500, memory_limit_mib=16, **json.loads(sys.argv[3]))
        def save():
            torch.save(model.state_dict(), built.with_suffix(".part"))
            built.with_suffix(".part").rename(built)
        model.fit_counts(np.load(ids, mmap_mode="r"), eos_id=0, save=save)
        os._exit(0)
    attempts, allowed = attempts + 1, generator.uniform(0, 0.1) * (1 + attempts / 3)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if used(child) > allowed:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.005)
    # There is no folder before the first step.
    for manifest in Path(os.environ["TMPDIR"]).glob("*/steps.json"):
        steps.append(len(json.loads(manifest.read_bytes())["steps"]))
print(json.dumps([attempts, steps]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked and killed")
@pytest.mark.parametrize("bits", [None, 8])
def test_a_process_killed_while_it_saves_leaves_the_counts(
    bits: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ids = (np.random.default_rng(3).zipf(1.3, 200_000) % 500).astype(np.uint16)
    options: dict[str, Any] = {"order": 3, "quantize_bits": bits}
    if not (child := os.fork()):
        NGramModel(500, memory_limit_mib=16, **options).fit_counts(ids, eos_id=0, save=lambda: os._exit(9))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (manifest,) = tmp_path.glob("*/steps.json")
    before = json.loads(manifest.read_bytes())["steps"]
    saved: list[dict[str, Any]] = []
    model, expected = NGramModel(500, memory_limit_mib=16, **options), NGramModel(500, **options)
    with caplog.at_level("INFO"):
        model.fit_counts(ids, eos_id=0, save=lambda: saved.append(json.loads(manifest.read_bytes())["steps"]))
    assert "continuing in" in caplog.text
    assert not [message for message in caplog.messages if "counting" in message or "merging" in message]
    assert saved == [before]
    assert not list(tmp_path.iterdir())
    expected.fit_counts(ids, eos_id=0)
    for name, values in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], values), name


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are forked and watched through /proc")
def test_a_build_killed_at_random_points_gives_the_same_model(tmp_path: Path) -> None:
    ids = (np.random.default_rng(3).zipf(1.3, 400_000) % 500).astype(np.uint16)
    np.save(tmp_path / "ids.npy", ids)
    temporary, built = tmp_path / "temporary", tmp_path / "built.pt"
    temporary.mkdir()
    found = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "ids.npy"), str(built), json.dumps(OPTIONS)],
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    attempts, steps = json.loads(found.stdout)
    assert attempts >= 4
    assert max(steps) > 0
    expected, weights = NGramModel(500, **OPTIONS), torch.load(built, weights_only=True)  # type: ignore[arg-type]
    expected.fit_counts(ids, eos_id=0)
    assert weights.keys() == expected.state_dict().keys()
    for name, values in expected.state_dict().items():
        assert torch.equal(weights[name], values), name
    assert not list(temporary.iterdir())
