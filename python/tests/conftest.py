"""A deployment for each run: a control plane on a real RabbitMQ, key files made by `bulla`."""

import contextlib
import itertools
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import pytest

# oslo.concurrency takes it from there alone, when it is imported.
os.environ.setdefault("OSLO_LOCK_PATH", tempfile.gettempdir())

AMQP = os.environ.get("BULLA_TEST_AMQP", "").removesuffix("/%2f").removesuffix("/")
BULLA = os.environ.get("BULLA_TEST_PROGRAM")


def pytest_report_header():
    import oslo_messaging.version

    version = oslo_messaging.version.version_info.release_string()
    return f"oslo.messaging {version}"


class Deployment:
    """A home folder, and `bulla serve` on it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.home = self.folder / "home"
        self.amqp = AMQP
        self._numbers = itertools.count()
        self.env = {**os.environ, "BULLA_HOME": str(self.home), "BULLA_BUS_URL": AMQP}
        self.bulla("init")
        port = _free_port()
        self.api = f"http://127.0.0.1:{port}"
        self.log = open(self.folder / "serve.log", "w")
        self.process = subprocess.Popen(
            [BULLA, "serve", "--plain", "--listen", f"127.0.0.1:{port}"],
            env=self.env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        eventually(self._answers, 60)

    def bulla(self, *args, **more):
        done = subprocess.run(
            [BULLA, *args], env=self.env, capture_output=True, text=True, **more
        )
        assert done.returncode == 0, f"bulla {args}: {done.stdout}{done.stderr}"
        return done.stdout

    def component(self, name, instance=None):
        path = self.folder / f"{instance or name}-{next(self._numbers)}.key"
        more = ["--instance", instance] if instance else []
        self.bulla("component", "add", name, *more, "--out", str(path))
        return path

    def agent(self, name, *more):
        out = self.folder / f"agent-{next(self._numbers)}.key"
        self.bulla("agent", "add", name, "--key", "--out", str(out), *more)
        return out

    def _answers(self):
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "serve.log").read_text())
        with contextlib.suppress(OSError):
            urllib.request.urlopen(self.api + "/v1/health", timeout=1)
            return True
        with contextlib.suppress(OSError):
            host, port = self.api.removeprefix("http://").split(":")
            socket.create_connection((host, int(port)), 1).close()
            return True
        return False

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


def eventually(what, seconds=30):
    """What `what()` gives once it is true."""
    end = time.monotonic() + seconds
    while True:
        got = what()
        if got or time.monotonic() > end:
            assert got, f"not within {seconds} s"
            return got
        time.sleep(0.02)


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def deployment():
    if not (AMQP and BULLA):
        pytest.skip("BULLA_TEST_AMQP and BULLA_TEST_PROGRAM say where broker and program are")
    folder = tempfile.mkdtemp(prefix="bulla-python-")
    made = Deployment(folder)
    yield made
    made.close()
    if not os.environ.get("BULLA_TEST_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)
