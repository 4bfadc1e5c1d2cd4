"""PyPI's python-zaqarclient, unchanged, against a service that asks nobody who they are.

    clients.py URL        every call of the library
"""

import sys

from zaqarclient.queues import client as zaqar
from zaqarclient.transport import errors

CLIENT = "3381af92-2b9e-11e3-b191-71861300734c"
OTHER = "3381af92-2b9e-11e3-b191-71861300734d"


def connect(url, client=CLIENT, signed=None):
    options = {"auth_opts": {"backend": "noauth", "options": {"os_project_id": "clients"}}}
    if signed:
        options = {"auth_opts": {"backend": "signed-url", "options": signed}}
    options["client_uuid"] = client
    return zaqar.Client(url, version=2, conf=options)


def expect(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"{what}: got {got!r} instead of {wanted!r}")


def refused(what, error, call):
    try:
        call()
    except error:
        return
    raise SystemExit(f"{what}: was not refused with {error.__name__}")


def queues(client):
    expect("a queue that is not there", client.queue("q1", auto_create=False).exists(), False)
    queue = client.queue("q1", force_create=True)
    expect("a queue that is", queue.exists(), True)
    names = [one.name for one in client.queues()[0]]
    expect("the list", names, ["q1"])
    count = client.queues(with_count=True, detailed=True)[1]
    expect("the count", count, 1)
    queue.metadata(new_meta={"color": "red"})
    expect("metadata", queue.metadata(force_reload=True)["color"], "red")
    queue.metadata(new_meta={"color": "blue", "_default_message_ttl": 600})
    expect("metadata again", queue.metadata(force_reload=True)["color"], "blue")
    expect("a reserved value", queue.metadata(force_reload=True)["_default_message_ttl"], 600)
    expect("statistics", queue.stats["messages"]["total"], 0)
    return queue


def messages(queue, other):
    posted = queue.post([{"ttl": 300, "body": {"n": n}} for n in range(12)])
    ids = [one.rsplit("/", 1)[1] for one in posted["resources"]]
    expect("posted", len(ids), 12)
    expect("echo", len(list(queue.messages(echo=False))), 0)
    read = other.messages(limit=5)
    expect("a page", [one.body["n"] for one in read], [0, 1, 2, 3, 4])
    read = other.messages(limit=5).stream()
    expect("a stream", [one.body["n"] for one in read], list(range(12)))
    one = queue.message(ids[3])
    expect("one", (one.id, one.body, one.ttl), (ids[3], {"n": 3}, 300))
    some = queue.messages(*ids[:2])
    expect("some", [one.body["n"] for one in some], [0, 1])
    one.delete()
    refused("a deleted one", errors.ResourceNotFound, lambda: queue.message(ids[3]))
    queue.delete_messages(*ids[4:6])
    popped = queue.pop(count=2)
    expect("popped", [one.body["n"] for one in popped], [0, 1])
    expect("left", queue.stats["messages"]["free"], 7)
    return ids


def claims(queue):
    claim = queue.claim(ttl=100, grace=60, limit=3)
    held = list(claim)
    expect("claimed", [one.body["n"] for one in held], [2, 6, 7])
    expect("whose", held[0].claim_id, claim.id)
    bare = queue.message(held[0].id)
    bare.href = bare.href.split("?")[0]
    refused("a held one", errors.ForbiddenError, bare.delete)
    held[0].delete()
    claim.update(ttl=200, grace=60)
    same = queue.claim(id=claim.id)
    expect("the claim", (same.ttl, len(list(same))), (200, 2))
    claim.delete()
    refused("a released one", errors.ResourceNotFound, lambda: queue.claim(id=claim.id).ttl)
    expect("free again", queue.stats["messages"]["free"], 6)
    too_large = [{"ttl": 300, "body": "x" * 300_000}]
    refused("too large", errors.MalformedRequest, lambda: queue.post(too_large))


def grants(url, queue):
    client = connect(url)
    grant = client.queue("q1", auto_create=False)
    signed = grant.signed_url(paths=["messages"], methods=["GET"], ttl_seconds=600)
    guest = connect(url, OTHER, {
        "signature": signed["signature"], "expires": signed["expires"],
        "methods": signed["methods"], "paths": signed["paths"], "os_project_id": "clients",
    }).queue("q1", auto_create=False)
    expect("by a grant", len(list(guest.messages(limit=3))), 3)
    refused("beyond a grant", errors.ResourceNotFound, lambda: guest.post([{"body": 1, "ttl": 60}]))


def subscriptions(client):
    hook = {"subscriber": "http://hook.invalid/library", "ttl": 600, "options": {"a": 1}}
    made = client.subscription("q1", **hook)
    expect("subscribed", (made.subscriber, made.ttl, made.options), (hook["subscriber"], 600, {"a": 1}))
    listed = list(client.subscriptions("q1"))
    expect("subscriptions", [one.id for one in listed], [made.id])
    made.update({"ttl": 1000})
    expect("changed", client.subscription("q1", id=made.id).ttl, 1000)
    made.delete()
    expect("no subscriptions", list(client.subscriptions("q1")), [])


def catalogue(client):
    pool = client.pool("p1", weight=10, uri="redis://127.0.0.1:1", options={"a": 1})
    expect("a pool", client.pool("p1", auto_create=False).get()["weight"], 10)
    pool.update({"weight": 20})
    expect("pools", [one.name for one in client.pools()], ["p1"])
    flavor = client.flavor("fast", pool_list=["p1"])
    shown = client.flavor("fast", auto_create=False).get()
    expect("a flavor", shown["pool_list"], ["p1"])
    flavor.update({"pool_list": ["p1"]})
    expect("flavors", [one.name for one in client.flavors()], ["fast"])
    refused("a pool of a flavor", errors.ForbiddenError, pool.delete)
    flavor.delete()
    pool.delete()
    expect("no pools", list(client.pools()), [])


def library(url):
    client = connect(url)
    expect("ping", client.ping(), True)
    expect("health", client.health()["catalog_reachable"], True)
    expect("home", "rel/queues" in client.homedoc()["resources"], True)
    client.queue("q1", auto_create=False).delete()
    queue = queues(client)
    other = connect(url, OTHER).queue("q1", auto_create=False)
    messages(queue, other)
    claims(queue)
    grants(url, queue)
    subscriptions(client)
    catalogue(client)
    queue.purge()
    expect("purged", queue.stats["messages"]["total"], 0)
    queue.delete()
    expect("deleted", queue.exists(), False)


def main():
    library(sys.argv[1])
    print("python-zaqarclient: every call as it should be")


if __name__ == "__main__":
    main()
