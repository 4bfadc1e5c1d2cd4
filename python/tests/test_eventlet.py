"""The same driver where threads are eventlet's: nothing may block the hub."""

import pathlib
import subprocess
import sys

PROGRAM = pathlib.Path(__file__).with_name("green_peer.py")


def test_green_threads(deployment):
    conductor, guest = deployment.component("conductor", "green"), deployment.agent("green")
    asked = [str(deployment.folder), deployment.amqp, str(conductor), str(guest)]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), *asked], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0 and "all good" in ran.stdout, ran.stdout + ran.stderr[-4000:]
