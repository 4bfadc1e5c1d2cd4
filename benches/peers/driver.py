"""Python over oslo.messaging: as it is, with Trove's serializer, and sealed by the driver of `bulla`.

    cargo xtask test                    # once: makes the environments (target/venv-oslo-*)
    python3 benches/peers/driver.py

Builds what it needs, starts a RabbitMQ of its own, and one server and one client process of each kind. The kinds take
turns in slices of a few seconds, so that what else the machine does hits all of them. A call echoes its bytes and
carries a request's context of 24 members. `--help` says what can be set.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PEER = pathlib.Path(__file__).with_name("driver_peer.py")
sys.path.insert(0, str(ROOT / "python/tests"))

import stage  # noqa: E402
from deployment import Deployment  # noqa: E402


class Pair:
    """A server and a client of one kind."""

    def __init__(self, kind, python, amqp, package, keys, claims):
        self.kind, self._ends = kind, []
        for end in ("server", "client"):
            args = [python, PEER, end, kind, amqp]
            if kind == "sealed":
                args += [keys[end], claims or ""]
            env = {**os.environ, "PYTHONPATH": str(package)}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._ends.append(subprocess.Popen([*map(str, args)], env=env, **pipes))
            assert self._ends[-1].stdout.readline() == "ready\n", f"{kind} {end} did not begin"

    def run(self, threads, seconds, size):
        client = self._ends[1]
        client.stdin.write(f"{threads} {seconds} {size}\n")
        client.stdin.flush()
        return json.loads(client.stdout.readline())

    def close(self):
        for end in reversed(self._ends):
            end.stdin.close()
            end.wait(30)


def figures(slices):
    """What the slices of one kind come to."""
    taken = sorted(second for one in slices for second in one["taken"])
    rates = [len(one["taken"]) / one["lasted"] for one in slices]
    used = sum(sum(one["used"].values()) for one in slices)
    wrong = [text for one in slices for text in one["wrong"]]
    return {
        "calls_per_second": statistics.median(rates),
        "rates": rates,
        "p50_ms": taken[len(taken) // 2] * 1e3,
        "p99_ms": taken[len(taken) * 99 // 100] * 1e3,
        "cpu_us_per_call": used / len(taken) * 1e6,
        "wrong": wrong,
    }


def ratio(one, other):
    """Of the slices that followed each other in turn."""
    return statistics.median(a / b for a, b in zip(one["rates"], other["rates"]))


def built(args):
    folder = ROOT / "target" / args.profile
    if not args.no_build:
        more = ["--release"] if args.profile == "release" else []
        packages = ["-p", "bulla-python", "-p", "bulla-cli"]
        subprocess.run(["cargo", "build", *more, *packages], cwd=ROOT, check=True)
        example = ["-p", "bulla-services", "--example", "rabbit"]
        if not args.amqp:
            subprocess.run(["cargo", "build", *more, *example], cwd=ROOT, check=True)
    return folder


def main():
    wish = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    wish.add_argument("--python", default=str(ROOT / "target/venv-oslo-debian/bin/python"))
    wish.add_argument("--kinds", default="plain,trove,sealed")
    wish.add_argument("--concurrency", default="1,64")
    wish.add_argument("--size", type=int, default=1024, help="bytes, both ways")
    wish.add_argument("--rounds", type=int, default=5)
    wish.add_argument("--seconds", type=float, default=2.0, help="of a slice")
    wish.add_argument("--claims", help="of the sealed server; a folder beside its key unless set")
    wish.add_argument("--amqp", help="of a broker that is there: amqp://USER:PASSWORD@HOST:PORT/%%2f")
    wish.add_argument("--profile", default="release")
    wish.add_argument("--no-build", action="store_true")
    wish.add_argument("--json", action="store_true")
    args = wish.parse_args()
    folder = built(args)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    broker, amqp = None, args.amqp
    if amqp is None:
        broker = subprocess.Popen([folder / "examples/rabbit"], **pipes)
        amqp = broker.stdout.readline().strip()
    pairs, deployment = [], None
    try:
        with tempfile.TemporaryDirectory(prefix="bulla-bench-") as home:
            package = pathlib.Path(home) / "package"
            stage.stage(folder / "lib_bulla.so", package)
            kinds = args.kinds.split(",")
            keys = {}
            if "sealed" in kinds:
                deployment = Deployment(home, amqp, str(folder / "bulla"))
                keys = {"server": deployment.component("echo"), "client": deployment.agent("caller")}
            pairs = [
                Pair(kind, args.python, amqp, package, keys, args.claims) for kind in kinds
            ]
            report(args, measure(args, pairs))
    finally:
        for pair in pairs:
            pair.close()
        if deployment:
            deployment.close()
        if broker:
            broker.stdin.close()
            broker.wait(60)


def measure(args, pairs):
    measured = {}
    for threads in map(int, args.concurrency.split(",")):
        slices = {pair.kind: [] for pair in pairs}
        for n in range(args.rounds + 1):
            for pair in pairs:
                one = pair.run(threads, args.seconds, args.size)
                # The first of each opens its connections.
                if n:
                    slices[pair.kind].append(one)
        measured[threads] = {kind: figures(of) for kind, of in slices.items()}
    return measured


def report(args, measured):
    if args.json:
        return print(json.dumps(measured, indent=1))
    print(f"echo calls of {args.size} bytes, {args.rounds} slices of {args.seconds} s each")
    print("| at once | | calls/s | p50 ms | p99 ms | CPU µs a call, both ends | over plain | over Trove's |")
    print("|---|---|---|---|---|---|---|---|")
    for threads, kinds in measured.items():
        for kind, of in kinds.items():
            over = [
                f"{ratio(of, kinds[other]):.2f}" if other in kinds and other != kind else ""
                for other in ("plain", "trove")
            ]
            print(
                f"| {threads} | {kind} | {of['calls_per_second']:.0f} | {of['p50_ms']:.2f} | "
                f"{of['p99_ms']:.1f} | {of['cpu_us_per_call']:.0f} | {over[0]} | {over[1]} |"
            )
            for text in of["wrong"]:
                print(f"    {text}")


if __name__ == "__main__":
    main()
