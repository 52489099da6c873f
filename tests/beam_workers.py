"""Beam's job server and worker pool for tests, each a process of its own."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def wait_for_port(port, process, log):
    """Until something listens there."""
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on {port} after 30 s: {log.read_text()}")


@pytest.fixture(scope="session")
def portable_runner(object_store, tmp_path_factory):
    """Beam's job server and worker pool, each a process of its own: (the options for a job, the workers' log)."""
    folder = tmp_path_factory.mktemp("portable_runner")
    _, store_env, _ = object_store
    # The pool starts `python`, which must be the one with Beam and librosa in it.
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, **store_env, "PATH": path}
    ports, processes, logs = {}, [], {}
    for module, option in (
        ("portability.local_job_service_main", "--port"),
        ("worker.worker_pool_main", "--service_port"),
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports[module] = free.getsockname()[1]
        logs[module] = folder / f"{module}.log"
        with open(logs[module], "wb") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"apache_beam.runners.{module}", f"{option}={ports[module]}"],
                    cwd=ROOT,
                    env=env,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )  # fmt: skip
            )
    for module, process in zip(ports, processes):
        wait_for_port(ports[module], process, logs[module])
    job_port, worker_port = ports.values()
    yield (
        ["--runner=PortableRunner", f"--job_endpoint=localhost:{job_port}",
         "--environment_type=EXTERNAL", f"--environment_config=localhost:{worker_port}"],
        logs["worker.worker_pool_main"],
    )  # fmt: skip
    for process in processes:
        process.terminate()
        process.wait(timeout=15)
