"""The `openstack messaging` commands, unchanged, each once, against a service.

    commands.py open URL        one that asks nobody who they are
    commands.py keystone URL    one behind a Keystone, which the environment names; as a user who
                                administers the service, and as one who does not (OS_OTHER)

Without a Keystone nothing says whose queues they are: a real Zaqar then wants a header that the
commands don't send. What stands in front of such a Zaqar puts it there; here, this script.
"""

import contextlib
import http.client
import io
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from openstackclient import shell

# Where the Zaqar on which this was tried has a store.
POOL = "redis://127.0.0.1:26390?dbid=2"
CLIENT = "3381af92-2b9e-11e3-b191-71861300734c"


def front(url):
    """A server that says whose queues they are, and hands on."""
    target = urllib.parse.urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def hand_on(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {key: value for key, value in self.headers.items() if key != "Host"}
            headers["X-Project-ID"] = "commands"
            there = http.client.HTTPConnection(target.hostname, target.port, timeout=30)
            there.request(self.command, self.path, body, headers)
            answer = there.getresponse()
            text = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = hand_on

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def run(*words):
    """What a command says; it ends the script if it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = shell.main(["messaging", *words])
    if status:
        raise SystemExit(f"openstack messaging {' '.join(words)}: {err.getvalue()[-800:]}")
    return out.getvalue()


def told(*words):
    return json.loads(run(*words, "-f", "json"))


def fails(*words):
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        status = shell.main(["messaging", *words])
    if not status:
        raise SystemExit(f"openstack messaging {' '.join(words)}: was not refused")
    return err.getvalue()


def expect(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"{what}: got {got!r} instead of {wanted!r}")


def queues():
    run("queue", "create", "q1")
    expect("queues", [one["Name"] for one in told("queue", "list")], ["q1"])
    listed = told("queue", "list", "--detailed", "--with_count")
    expect("detailed", len(listed), 1)
    run("queue", "set", "metadata", "q1", '{"color": "red"}')
    metadata = told("queue", "get", "metadata", "q1")["Metadata"]
    expect("metadata", metadata["color"], "red")
    posted = [{"body": {"n": n}, "ttl": 300} for n in range(3)]
    run("message", "post", "q1", json.dumps(posted))
    listed = told("message", "list", "q1", "--echo")
    expect("messages", [one["Body"]["n"] for one in listed], [0, 1, 2])
    expect("statistics", told("queue", "stats", "q1")["Stats"]["messages"]["total"], 3)
    signed = told("queue", "signed", "url", "q1", "--methods", "GET", "--ttl-seconds", "600")
    expect("granted", signed["Paths"], "/v2/queues/q1/messages")


def claims():
    claimed = told("claim", "create", "q1", "--ttl", "100", "--grace", "60")
    expect("claimed", [one["Messages"]["n"] for one in claimed], [0, 1, 2])
    claim = claimed[0]["Claim_ID"]
    expect("queried", len(told("claim", "query", "q1", claim)), 3)
    expect("renewed", len(told("claim", "renew", "q1", claim, "--ttl", "200")), 3)
    run("claim", "release", "q1", claim)
    # It is gone, so that it can't be released twice: the command looks for it first.
    expect("claimed again", len(told("claim", "create", "q1")), 3)


def subscriptions():
    hook = "http://hook.invalid/commands"
    made = told("subscription", "create", "q1", hook, "600", "--options", '{"a": 1}')
    expect("subscribed", (made["Subscriber"], made["TTL"]), (hook, 600))
    listed = told("subscription", "list", "q1")
    expect("subscriptions", [one["ID"] for one in listed], [made["ID"]])
    shown = told("subscription", "show", "q1", made["ID"])
    expect("a subscription", (shown["TTL"], shown["Confirmed"]), (600, False))
    run("subscription", "update", "q1", made["ID"], "--ttl", "700")
    expect("updated", told("subscription", "show", "q1", made["ID"])["TTL"], 700)
    run("subscription", "delete", "q1", made["ID"])
    expect("no subscriptions", told("subscription", "list", "q1"), [])


def catalogue():
    run("pool", "create", "p1", POOL, "10", "--pool_options", '{"a": 1}')
    expect("a pool", told("pool", "show", "p1")["Weight"], 10)
    run("pool", "update", "p1", "--pool_weight", "20")
    expect("pools", [one["Weight"] for one in told("pool", "list", "--detailed")], [20])
    run("flavor", "create", "fast", "--pool_list", "p1")
    expect("a flavor", told("flavor", "show", "fast")["Name"], "fast")
    run("flavor", "update", "fast", "--pool_list", "p1")
    expect("flavors", [one["Name"] for one in told("flavor", "list", "--detailed")], ["fast"])
    run("flavor", "delete", "fast")
    run("pool", "delete", "p1")
    expect("no pools", told("pool", "list"), [])
    expect("health", json.loads(run("health"))["catalog_reachable"], True)


def rest():
    expect("home", "rel/queues" in json.loads(run("homedoc"))["resources"], True)
    expect("ping", told("ping")["Pingable"], True)
    run("queue", "purge", "q1", "--resource_types", "messages")
    expect("purged", told("message", "list", "q1", "--echo"), [])
    run("queue", "delete", "q1")
    expect("deleted", told("queue", "list"), [])


def others():
    """Another project's user, who administers nothing; in a process of its own, as the commands remember
    who they were."""
    user, project = os.environ["OS_OTHER"].split("@")
    run("queue", "create", "hers")
    env = dict(os.environ, OS_USERNAME=user, OS_PASSWORD=user * 2, OS_PROJECT_NAME=project)
    subprocess.run([sys.executable, __file__, "other", sys.argv[2]], env=env, check=True, timeout=120)
    env["OS_PASSWORD"] = "wrong"
    words = [sys.executable, "-m", "openstackclient.shell", "messaging", "queue", "list"]
    wrong = subprocess.run(words, env=env, check=False, timeout=120, capture_output=True, text=True)
    expect("a wrong password", (wrong.returncode != 0, "401" in wrong.stderr), (True, True))


def other():
    expect("nobody else's queues", told("queue", "list"), [])
    run("queue", "create", "his")
    expect("one's own", [one["Name"] for one in told("queue", "list")], ["his"])
    for words in [["pool", "list"], ["health"], ["flavor", "delete", "fast"]]:
        said = fails(*words)
        expect(f"{words}, to a user: {said}", "not authorized" in said.lower(), True)


def main():
    how, url = sys.argv[1:]
    os.environ["OS_MESSAGE_CLIENT_ID"] = CLIENT
    if how == "open":
        os.environ.update(OS_AUTH_TYPE="none", OS_ENDPOINT=front(url))
    if how == "other":
        return other()
    queues()
    claims()
    subscriptions()
    catalogue()
    rest()
    if how == "keystone":
        others()
    print(f"openstack messaging ({how}): every command as it should be")


if __name__ == "__main__":
    sys.exit(main())
