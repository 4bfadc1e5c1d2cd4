"""A deployment of Bulla on a broker: a control plane, and key files made by `bulla`."""

import contextlib
import itertools
import os
import pathlib
import socket
import subprocess
import time
import urllib.request


class Deployment:
    """A home folder, and `bulla serve` on it."""

    def __init__(self, folder, amqp, program):
        self.folder = pathlib.Path(folder)
        self.home = self.folder / "home"
        self.amqp, self.program = amqp, program
        self._numbers = itertools.count()
        self.env = {**os.environ, "BULLA_HOME": str(self.home), "BULLA_BUS_URL": amqp}
        self.bulla("init")
        port = _free_port()
        self.api = f"http://127.0.0.1:{port}"
        self.log = open(self.folder / "serve.log", "w")
        self.process = subprocess.Popen(
            [program, "serve", "--plain", "--listen", f"127.0.0.1:{port}"],
            env=self.env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        eventually(self._answers, 60)

    def bulla(self, *args, **more):
        done = subprocess.run(
            [self.program, *args], env=self.env, capture_output=True, text=True, **more
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
