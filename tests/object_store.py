"""gs:// on this machine: an object store's emulator in a process of its own, and fresh buckets in it.

Commands that are to see it get `env=bucket.env`; nothing is changed in the process of the tests.
"""

import dataclasses
import http.server
import itertools
import json
import logging
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest
from gcsfs.core import GCSFileSystem

_NUMBERS = itertools.count()


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A bucket in the emulator.

    Attributes:
      url: gs://NAME
      env: the environment variables with which gcsfs, Beam and Google's clients find the emulator.
    """

    url: str
    env: dict[str, str]
    _fs: GCSFileSystem
    _log: pathlib.Path

    def upload(self, folder, name: str) -> str:
        """Copy a local folder to gs://BUCKET/name; returns that."""
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.is_file():
                self.write(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.url}/{name}"

    def write(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(f"{self.url}/{name}", data)

    def remove(self, name: str) -> None:
        self._fs.rm_file(f"{self.url}/{name}")

    def read(self, name: str) -> bytes:
        return self._fs.cat_file(f"{self.url}/{name}")

    def files(self, folder: str = "") -> dict[str, bytes]:
        """Everything below a folder of the bucket: relative name to content."""
        root = f"{self.url}/{folder}".rstrip("/")
        names = [path.removeprefix(root.removeprefix("gs://") + "/") for path in self._fs.find(root)]
        return {name: self._fs.cat_file(f"{root}/{name}") for name in names}

    def requests(self, name: str) -> list[str]:
        """What was asked for about one object of the bucket: "GET /download/..." and so on, in order."""
        bucket, quoted = self.url.removeprefix("gs://"), urllib.parse.quote(name, safe="")
        asked = re.findall(r'^"(\S+ \S+) HTTP', self._log.read_text(), re.MULTILINE)
        return [request for request in asked if f"/b/{bucket}/" in request and quoted in request]


@pytest.fixture(scope="session")
def object_store(tmp_path_factory):
    """The running emulator: (its address, the environment variables for commands, its log of requests)."""
    credentials = tmp_path_factory.mktemp("credentials") / "credentials.json"
    # Google's clients take this token as it is and never ask anyone for another.
    credentials.write_text(
        json.dumps({"type": "authorized_user", "client_id": "test", "client_secret": "test", "refresh_token": "test",
                    "token": "test", "expiry": "2099-01-01T00:00:00Z"})
    )  # fmt: skip
    log = tmp_path_factory.mktemp("object_store") / "requests.log"
    with open(log, "wb") as stderr:
        server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    yield (
        address,
        {
            "STORAGE_EMULATOR_HOST": address,
            # Google's newer kinds of bucket are asked about over gRPC, which no emulator answers.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
            "GOOGLE_CLOUD_PROJECT": "test",
        },
        log,
    )
    server.stdin.close()  # the server ends with its standard input, also where the tests were killed
    server.wait(timeout=10)


@pytest.fixture
def bucket(object_store):
    """A fresh bucket for one test."""
    address, env, log = object_store
    name = f"melcache-test-{next(_NUMBERS)}"
    fs = GCSFileSystem(project="test", token="anon", endpoint_url=address, use_listings_cache=False)
    fs.mkdir(name)
    return Bucket(url=f"gs://{name}", env=env, _fs=fs, _log=log)


@pytest.fixture
def refusing_store(object_store):
    """Makes stores that refuse whatever they are asked: call it with a status; returns the environment variables."""
    servers = []

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            message = {"code": self.server.status, "message": "so said the store"}
            answer = json.dumps({"error": message}).encode()
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, *arguments):
            pass

    def start(status):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
        server.status, server.handle_error = status, lambda *arguments: None  # clients hang up
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        _, env, _ = object_store
        return {**env, "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server.server_port}"}

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _serve() -> None:
    from gcp_storage_emulator.server import create_server

    logging.basicConfig(level=logging.INFO, format="%(message)s")  # a line on stderr for each request
    # The usual queue of 5 drops connections under a burst, and each dropped one waits a second.
    http.server.HTTPServer.request_queue_size = 512
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    while server._api._httpd is None:
        time.sleep(0.01)
    print(server._api._httpd.server_port, flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    _serve()
