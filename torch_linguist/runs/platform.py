"""What differs between Linux, macOS and Windows: signals, processes, locks, ports, and files that are in use.

Other modules call these functions and never ask which system it is. Each function tests for what it needs, not for
the name of the system.
"""

import ctypes
import importlib
import math
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK")
"""Signals that ask a program to end: Ctrl-C, `kill`, a closed terminal, SLURM's `--signal=USR1`, Windows' Ctrl-Break.
"""

OPEN_FILES_STAY = os.name == "nt"
"""Whether a file that a process has open or mapped can be neither replaced nor deleted."""

REPLACE_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each further attempt to replace a file that a virus scanner or an indexer holds for a moment."""

PR_SET_PDEATHSIG = 1
"""Request of Linux's `prctl`: the signal that a process receives when its parent dies."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`: freed bytes at the end of the heap above which they return to the system, and size
from which a block is returned as soon as it is freed."""

KEPT_BYTES, KEPT_BLOCK = 256 * 2**20, 32 * 2**20
"""Their values for a process that frees and allocates the same memory again and again. The second is the largest that
glibc takes."""


def stop_signals() -> list[signal.Signals]:
    """Return those of `STOP_SIGNALS` that this system has."""
    return [signal.Signals[name] for name in STOP_SIGNALS if hasattr(signal, name)]


def is_kill(code: int) -> bool:
    """Return whether an exit code of `subprocess` means SIGKILL, the signal of the out-of-memory killer."""
    return code == -getattr(signal, "SIGKILL", math.inf)


def process_exists(number: int) -> bool:
    """Return whether a process has this number."""
    import psutil

    try:
        return bool(psutil.pid_exists(number))
    except OverflowError:
        return False


def group_options() -> dict[str, Any]:
    """Return options of `subprocess.Popen` for a process that Ctrl-C in this terminal does not reach."""
    if hasattr(subprocess, "CREATE_NEW_PROCESS_GROUP"):
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def interrupt_process(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process started with `group_options` to save its state and end."""
    process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))


def kill_process_tree(process: "subprocess.Popen[bytes]") -> None:
    """End a process started with `group_options`, and its children, at once."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.Signals["SIGKILL"])
        return
    import psutil

    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    process.kill()
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


def end_with_parent() -> None:
    """Have this process receive SIGTERM when its parent dies, where the system supports that (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent == 1 or os.getppid() != parent:
        # The parent died before the request; process 1 adopts orphans.
        os.kill(os.getpid(), signal.SIGTERM)


def keep_freed_memory() -> bool:
    """Have this process keep some hundred megabytes of freed memory for itself; return whether the system can (glibc).

    By default each training step returns its memory to the system and gets it back page by page: a thousand page
    faults, an eighth of a small model's step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK))


def try_lock(path: Path) -> tuple[bool, int | None]:
    """Lock a file that child processes can hold on to, unless another process has locked it.

    Returns:
        Whether the lock was taken, and its file descriptor; closing all copies of it releases the lock. The descriptor
        is None on systems without such locks (Windows), where the lock is always taken.
    """
    fcntl = _module("fcntl")
    if fcntl is None:
        return True, None
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False, None
    return True, descriptor


def replace_file(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that may be taken by a file; wait a little where that file is in use.

    Raises:
        OSError: the file cannot be replaced.
    """
    for pause in REPLACE_PAUSES if OPEN_FILES_STAY else ():
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    source.replace(target)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on disk."""
    is_folder = path.is_dir()
    # Windows cannot open folders, and syncs only files that are open for writing.
    if is_folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reuse_address(listener: socket.socket) -> None:
    """Let a server listen on a port at once that another one has just left."""
    # On Windows, which has an option against it, this one would let two servers share a port.
    if not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def belongs_to_user(path: Path) -> bool:
    """Return whether a file belongs to the user of this process; True on systems without numbers for users."""
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Return the name of the processor, which tells machines with a shared cache folder apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_resident_mib() -> float:
    """Return the largest resident set of this process so far, in MiB."""
    resource = _module("resource")
    if resource is None:
        import psutil

        memory = psutil.Process().memory_info()
        return float(getattr(memory, "peak_wset", memory.rss)) / 2**20
    peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    # macOS counts bytes, Linux kibibytes.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _module(name: str) -> Any:
    """Return a module, or None on systems without it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
