"""One job at a time in a directory: a lock that ends with the process that holds it, on disks and in object stores.

On a local disk the operating system's own file lock, which a killed process lets go of. An object store has none: there
the holder writes a lease and renews it, and a lease that nobody renews is taken over after LEASE_S, or at once where it
was a process of this machine that is gone.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from tfdata import storage
from tfdata.spec import DatasetError

LEASE_S = 90.0
_RENEWALS = 4  # in LEASE_S


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
    """Hold the lock at `path` (local or gs://).

    Raises:
      DatasetError: another job holds it; says which.
    """
    with _local(path) if not storage.is_remote(path) else _remote(path):
        yield


def _me() -> dict:
    return {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex, "time": time.time()}


def _busy(path: str, owner: dict, more: str = "") -> DatasetError:
    return DatasetError(
        f"another job is writing to {storage.parent(storage.parent(path))} (process {owner.get('pid', '?')} on "
        f"{owner.get('host', '?')}): wait until it is done, or choose another --output{more}"
    )


@contextlib.contextmanager
def _local(path: str) -> Iterator[None]:
    import fcntl

    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _busy(path, _parsed(file.read())) from None
        file.truncate(0)
        file.write(json.dumps(_me()))
        file.flush()
        yield


@contextlib.contextmanager
def _remote(path: str) -> Iterator[None]:
    me = _me()
    owner = _lease(path)
    if owner and not _is_over(owner):
        wait_s = max(1, round(LEASE_S - (time.time() - owner["time"])))
        raise _busy(path, owner, f"; if it was killed, the same command goes on in {wait_s} s")
    if owner:
        storage.remove(path)
    if not storage.create(path, json.dumps(me).encode()):  # of two that saw it free, one makes it
        raise _busy(path, _lease(path) or {})
    stop = threading.Event()

    def renew():
        while not stop.wait(LEASE_S / _RENEWALS):
            with contextlib.suppress(OSError):  # the next renewal tries again
                if is_mine():
                    storage.write_text(path, json.dumps({**me, "time": time.time()}))

    def is_mine() -> bool:
        """Not after a sleep of over LEASE_S, during which another took it; both then write the same bytes."""
        return (_lease(path) or {}).get("token") == me["token"]

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if is_mine():
            storage.remove(path)


def _lease(path: str) -> dict | None:
    try:
        return _parsed(storage.read_text(path)) or None
    except FileNotFoundError:
        return None


def _parsed(text: str) -> dict:
    try:
        return json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}


def _is_over(owner: dict) -> bool:
    if time.time() - owner.get("time", 0) > LEASE_S:
        return True
    return owner.get("host") == socket.gethostname() and not _is_running(owner.get("pid", -1))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
