"""Trove's own parts, of Debian, with the driver by the transport's URL alone: the packaged conductor on
SQLite, the guest's API of it, the guest agent's and the task manager's APIs."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import oslo_peers as peers
from deployment import eventually

TOPICS = "trove-conductor:component/conductor,taskmanager:component/taskmanager,guestagent.*:agent/*"
ROLE = pathlib.Path(__file__).with_name("trove_role.py")

pytest.importorskip("trove", reason="Debian's Trove is a peer of Debian's oslo.messaging alone")
if not shutil.which("trove-conductor"):
    CONDUCTOR = [sys.executable, "-c", "from trove.cmd.conductor import main; main()"]
else:
    CONDUCTOR = ["/usr/bin/trove-conductor"]


class Role:
    """A process of its own."""

    def __init__(self, role, config, log):
        self._log = open(log, "w")
        self._process = subprocess.Popen(
            [sys.executable, str(ROLE), role, str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._line() == "ready"

    def _line(self):
        line = self._process.stdout.readline()
        assert line, pathlib.Path(self._log.name).read_text()[-3000:]
        return json.loads(line)

    def __call__(self, do, **args):
        self._process.stdin.write(json.dumps({"do": do, "with": args}) + "\n")
        self._process.stdin.flush()
        answer = self._line()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def close(self):
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(30)


class Trove:
    def __init__(self, deployment):
        self.deployment, self.folder = deployment, deployment.folder / "trove"
        self.folder.mkdir()
        self._running = []
        # Guests speak about themselves alone.
        policy = deployment.folder / "trove.cedar"
        policy.write_text(deployment.bulla("policy", "starter", "trove"))
        deployment.bulla("policy", "activate", str(policy))
        self.database = self.role("database", None)
        self.instance = self.database("instance")
        self.other = self.database("instance")
        conf = self.config(deployment.component("conductor"), only_host="true", open_to_agents="*")
        log = open(self.folder / "conductor.log", "w")
        self.conductor = subprocess.Popen(
            [*CONDUCTOR, "--config-file", str(conf)], stdout=log, stderr=subprocess.STDOUT
        )
        guest_key = deployment.agent(self.instance["id"])
        self.guest = self.role(
            "guest",
            guest_key,
            guest_id=self.instance["id"],
        )
        self.control = self.role("control", deployment.component("taskmanager"))

    def config(self, key, **more):
        default = {name: more.pop(name) for name in list(more) if name.endswith(("_id", "_encr_key"))}
        path = self.folder / f"{len(list(self.folder.iterdir()))}.conf"
        scheme = "bulla+rabbit" if key else "rabbit"
        lines = ["[DEFAULT]", f"transport_url = {self.deployment.amqp.replace('amqp', scheme, 1)}"]
        lines += ["control_exchange = trove", "trove_conductor_workers = 1", "rpc_response_timeout = 20"]
        # Trove's own encryption would hide from the policy whom a guest speaks about.
        lines += ["enable_secure_rpc_messaging = false"]
        lines += ["agent_call_low_timeout = 15", "agent_call_high_timeout = 20"]
        lines += [f"{name} = {value}" for name, value in default.items()]
        lines += ["[database]", f"connection = sqlite:///{self.folder}/trove.sqlite"]
        if key:
            lines += ["[bulla]", f"key_file = {key}", f"topics = {TOPICS}"]
            lines += [f"{name} = {value}" for name, value in more.items()]
        path.write_text("\n".join(lines) + "\n")
        return path

    def role(self, role, key, **more):
        made = Role(role, self.config(key, **more), self.folder / f"{role}.log")
        self._running.append(made)
        return made

    def close(self):
        for role in self._running:
            role.close()
        self.conductor.terminate()
        self.conductor.wait(60)


@pytest.fixture(scope="module")
def trove(deployment):
    made = Trove(deployment)
    yield made
    made.close()


def test_a_guests_heartbeat_reaches_the_conductor(trove):
    guest = trove.instance["id"]
    args = {"instance_id": guest, "payload": {"service_status": "healthy"}, "sent": 1.0}
    trove.guest("conductor", method="heartbeat", args=args)
    eventually(lambda: trove.database("status", instance=guest) == "healthy")


def test_backups_and_root_are_reported(trove):
    guest, backup = trove.instance["id"], trove.instance["backup"]
    args = {"instance_id": guest, "backup_id": backup, "sent": 2.0, "size": 1.5, "state": "BUILDING"}
    trove.guest("conductor", method="update_backup", args=args)
    eventually(lambda: trove.database("backup", backup=backup) == ["BUILDING", 1.5])
    trove.guest("conductor", method="report_root", args={"instance_id": guest})
    eventually(lambda: trove.database("root_reported", instance=guest))


def test_a_guest_reports_for_no_other(trove):
    other = trove.other["id"]
    args = {"instance_id": other, "payload": {"service_status": "shutdown"}, "sent": 3.0}
    trove.guest("conductor", method="heartbeat", args=args)
    mine = {"instance_id": trove.instance["id"], "payload": {"service_status": "running"}, "sent": 4.0}
    trove.guest("conductor", method="heartbeat", args=mine)
    eventually(lambda: trove.database("status", instance=trove.instance["id"]) == "running")
    assert trove.database("status", instance=other) == "new"


def test_the_control_plane_calls_a_guest(trove):
    guest = trove.instance["id"]
    root = trove.control("guest", instance=guest, method="enable_root", args={})
    assert root == {"_name": "root", "_password": "s3cret"}
    with pytest.raises(RuntimeError, match="the database is down"):
        trove.control("guest", instance=guest, method="list_users", args={})


def test_nothing_of_it_is_readable(trove):
    import attacker as attacks

    attacker = attacks.Attacker(trove.deployment.amqp)
    guest = trove.instance["id"]
    seen = attacker.sniff("trove", f"guestagent.{guest}")
    trove.control("guest", instance=guest, method="enable_root", args={})
    assert b"enable_root" not in attacks.everything_readable(seen.next())
    attacker.close()
