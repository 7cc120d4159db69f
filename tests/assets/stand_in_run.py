"""A stand-in for a training of a sweep: writes the files of a run in milliseconds, and fails or waits on request."""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

values = dict(line.split("=", 1) for line in sys.argv[1:] if "=" in line)
name = values["name"].strip('"')
folder = Path(values["output_dir"].strip('"')) / name
orders = json.loads(os.environ.get("STAND_IN", "{}"))
with (folder.parent / "trace").open("a") as trace:
    trace.write(name + ("+" if "resume" in values else "") + "\n")
order = orders.get(name, "")
if order == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if order == "fail":
    sys.exit("error: nothing good")
folder.mkdir(exist_ok=True)
(folder / "config.yaml").touch()
running = {"running": {"stage": "fit", "tables": ["metrics.csv"]}}
(folder / "progress.json").write_text(json.dumps(running))
lr, seed = float(values.get("optim.lr", 0.003)), int(values.get("seed", 1))
loss = 3 + abs(math.log10(lr) + 2.5) + 0.01 * seed**2
if values.get("model") == "gru":
    loss += 0.5
with (folder / "metrics.csv").open("w") as file:
    file.write("step,train_loss,valid_loss" + "\n")
    for step in range(1, 6):
        file.write(f"{step},{loss + 1 / step},{loss + 1 / step - 0.2}" + "\n")
        file.flush()
if order.startswith("wait"):
    (folder / "ready").touch()
    while not (folder.parent / order).exists():
        time.sleep(0.02)
if order == "forever":
    (folder / "ready").touch()
    time.sleep(60)
summary = {
    "status": "finished",
    "seed": seed,
    "parameters": 10,
    "lr": lr,
    "weight_decay": 0.0,
    "train": {"tokens": 5},
    "valid": {"loss": loss, "perplexity": math.exp(loss)},
    "test": {"perplexity": math.exp(loss)},
}
(folder / "summary.json").write_text(json.dumps(summary))
