"""What differs between systems: on this one, and with the modules and signals of others taken away."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from torch_linguist.errors import WriteError
from torch_linguist.runs import files, platform

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
PARENT = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen({SLEEPER!r}, stdout=subprocess.PIPE)\n"
    "child.stdout.readline()\n"
    "print(child.pid, flush=True)\n"
    "child.wait()\n"
)

REUSE = """
import resource, sys
import torch
from torch_linguist.runs.platform import keep_freed_memory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        blocks = [torch.empty(20 * 2**20, dtype=torch.uint8).fill_(1) for _ in range(3)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(2)
without = faults(10)
kept = keep_freed_memory()
faults(2)
print(kept, without, faults(10))
"""


def ended(number: int) -> bool:
    """Wait up to ten seconds until a process is gone (or waits for its adoptive parent)."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        try:
            if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_signals_that_a_system_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {signal.SIGINT, signal.SIGTERM} <= set(platform.stop_signals())
    for name in ("SIGHUP", "SIGUSR1"):
        monkeypatch.delattr(signal, name, raising=False)
    assert {number.name for number in platform.stop_signals()} <= {"SIGINT", "SIGTERM", "SIGBREAK"}


def test_a_kill_is_told_from_other_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert platform.is_kill(-9) is hasattr(signal, "SIGKILL")
    assert not platform.is_kill(-15)
    monkeypatch.delattr(signal, "SIGKILL", raising=False)
    assert not platform.is_kill(-9)


def test_processes_that_exist() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    assert platform.process_exists(process.pid)
    process.wait()
    assert not platform.process_exists(process.pid)
    assert platform.process_exists(os.getpid())
    assert not platform.process_exists(10**30)


@pytest.mark.parametrize("groups", [True, False])
def test_a_process_is_killed_with_its_children(groups: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not groups:
        monkeypatch.delattr(os, "killpg", raising=False)
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, **platform.group_options())
    assert process.stdout is not None
    child = int(process.stdout.readline())
    platform.kill_process_tree(process)
    assert process.wait(10) != 0
    assert ended(child)
    if not groups:
        platform.kill_process_tree(process)  # There is nothing left to kill.


def test_an_interrupt_reaches_a_group_of_its_own() -> None:
    code = "import time\ntry:\n    print(1, flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    exit(7)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, **platform.group_options())
    assert process.stdout is not None
    process.stdout.readline()
    platform.interrupt_process(process)
    assert process.wait(10) == (7 if os.name == "posix" else 0xC000013A)


def test_windows_gets_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    assert platform.group_options() == {"creationflags": 512}
    platform.interrupt_process(SimpleNamespace(send_signal=sent.append))  # type: ignore[arg-type]
    assert sent == [1]


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    taken, descriptor = platform.try_lock(tmp_path / "new" / "a.lock")
    assert taken
    if descriptor is not None:
        assert platform.try_lock(tmp_path / "new" / "a.lock") == (False, None)
        os.close(descriptor)


def test_without_such_locks_it_is_always_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert [platform.try_lock(tmp_path / "a.lock") for _ in range(2)] == [(True, None)] * 2


@pytest.mark.parametrize("windows", [False, True])
def test_a_port_is_reused_where_no_other_server_can_take_it(windows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if windows:
        monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        pytest.skip("the other case")
    with socket.socket() as listener:
        platform.reuse_address(listener)
        assert bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is not windows


def test_peak_memory_with_and_without_the_resource_module(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = platform.peak_resident_mib()
    assert psutil.Process().memory_info().rss / 2**20 * 0.5 < ours < 2**20
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(
        psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=0, peak_wset=3 * 2**20))
    )
    assert platform.peak_resident_mib() == 3


def test_freed_memory_is_used_again_without_page_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux's counts of page faults")
    environment = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", REUSE], env=environment, capture_output=True, text=True, check=True)
    kept, without, faults = done.stdout.split()
    if kept == "False":
        pytest.skip("needs glibc")
    # Ten rounds of 60 MiB in pages of 4 KiB.
    assert int(without) > 10_000
    assert int(faults) < 1_000
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace())
    assert not platform.keep_freed_memory()


def test_cores_owner_and_processor_where_the_system_cannot_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= platform.available_cores() <= (os.cpu_count() or 1)
    assert platform.belongs_to_user(tmp_path)
    assert platform.processor_name()
    for name in ("sched_getaffinity", "getuid"):
        monkeypatch.delattr(os, name, raising=False)
    assert platform.available_cores() == (os.cpu_count() or 1)
    assert platform.belongs_to_user(Path("/"))


def test_a_file_in_use_is_replaced_once_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_text(tmp_path / "a.json", "old")
    monkeypatch.setattr(platform, "OPEN_FILES_STAY", True)
    replace, free = Path.replace, threading.Event()

    def guarded(source: Path, target: Path) -> Path:
        if not free.is_set():
            raise PermissionError(13, "Access is denied", str(target))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", guarded)
    threading.Timer(0.2, free.set).start()
    files.write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "new"

    free.clear()
    monkeypatch.setattr(platform, "REPLACE_PAUSES", (0.0, 0.0))
    with pytest.raises(WriteError, match=r"a\.json"):
        files.write_text(tmp_path / "a.json", "newer")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
