"""Requests that were sent to a real Zaqar (23.0.1), and what is kept of the answers.

    requests_of_zaqar.py record URL FILE     writes the answers of the Zaqar at URL
    requests_of_zaqar.py check URL FILE      compares the answers of a service with them

An answer is its status, its content type, whether it has a Location, and the shape of its body: the
types of what is in it, and the titles of errors. Where ours is another on purpose, OURS says so.
"""

import json
import re
import sys
import urllib.error
import urllib.request

ONE = {"Client-ID": "30387f00-39a0-11ee-be56-0242ac120002", "X-Project-ID": "shapes"}
TWO = dict(ONE, **{"Client-ID": "30387f00-39a0-11ee-be56-0242ac120003"})
PATCH = "application/openstack-messaging-v2.0-json-patch"
# Where the Zaqar that was asked has a store.
POOL = "redis://127.0.0.1:26390"
UNKNOWN = "3dbdac3b-2a1d-4b45-a1ff-9c3a30b7f8d1"

TOPICS = "Zaqar has topics in MongoDB alone"

# Requests whose answers differ, the status of ours, and why.
OURS = {
    "HEAD /v2/queues/a": (404, "says whether there is one, which the client asks"),
    "PATCH /v2/queues/b {}": (400, "an object is no reason to fail"),
    'POST /v2/queues/a/messages {"messages": [1]}': (400, "a number is no reason to fail"),
    "GET /v2/queues/a/messages?include_claimed=true": (200, "Zaqar's Redis driver fails"),
    "GET /v2/queues?limit=1&with_count=true": (200, "counts"),
    "GET /v2/queues?name=b": (200, "filters"),
    "GET /v2/queues?x=1": (200, "filters"),
    "POST /v2/queues/a/claims": (201, "says of a message that it is not its first claim"),
    "DELETE /v2/queues/a/messages?pop=1": (200, "a popped message has no claim"),
    "DELETE /v2/queues/a/messages?pop=10": (200, "a popped message has no claim"),
    "GET /v2/": (200, "another set of resources"),
    "GET /v2/health": (200, "names its store, not pools"),
    "POST /v2/queues/a/subscriptions []": (400, "an array is no reason to fail"),
    "DELETE /v2/pools/one": (403, "a flavor has it"),
    "GET /v2/topics": (200, TOPICS),
    "PUT /v2/topics/a": (201, TOPICS),
    "GET /v2/topics/a": (200, TOPICS),
    "GET /v2/topics/a/stats": (200, TOPICS),
    "DELETE /v2/topics/a/messages": (400, TOPICS),
}


def shape(value, key=None):
    if isinstance(value, dict):
        return {name: shape(value[name], name) for name in sorted(value)}
    if isinstance(value, list):
        return [shape(one) for one in value]
    if key == "title":
        return value
    return type(value).__name__


class Talk:
    def __init__(self, url):
        self.url, self.answers = url, []

    def ask(self, method, path, body=None, headers=ONE, kind=None, raw=None):
        data = raw if raw is not None else body if body is None else json.dumps(body).encode()
        headers = dict(headers)
        if data is not None:
            headers["Content-Type"] = kind or "application/json"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            response = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            response = error
        text = response.read().decode()
        location = response.headers.get("Location")
        value = json.loads(text) if text else None
        name = f"{method} {path} {(data or b'').decode()[:90]}".strip()
        self.answers.append({
            "request": re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", name),
            "status": response.status,
            "type": response.headers.get("Content-Type"),
            "located": location is not None,
            "shape": shape(value),
        })
        return value, location


def common(ask):
    for path in ["/v2", "/v2/nope", "/v2/ping", "/"]:
        ask("GET", path)
    ask("HEAD", "/v2/ping")
    ask("POST", "/v2/ping")
    path, client = "/v2/queues/a", {"Client-ID": ONE["Client-ID"]}
    ask("GET", path, headers={"X-Project-ID": "shapes"})
    ask("GET", path, headers={"X-Project-ID": "shapes", "Client-ID": "x"})
    ask("GET", path, headers=client)
    ask("GET", path, headers=dict(client, **{"X-Project-ID": ""}))
    ask("GET", path, headers=dict(client, **{"X-Project-ID": "x" * 257}))
    ask("GET", path, headers=dict(ONE, Accept="text/html"))
    ask("GET", "/v2/queues/a%20b")
    ask("GET", "/v2/queues/" + "a" * 65)
    for query in ["limit=0", "limit=21", "limit=x", "marker=zz"]:
        ask("GET", "/v2/queues?" + query)


def queues(ask):
    for method in ["DELETE", "GET", "HEAD", "PUT"]:
        ask(method, "/v2/queues/a")
    ask("PUT", "/v2/queues/a", {"x": 1})
    ask("PUT", "/v2/queues/b", {"x": 1, "_default_message_ttl": 100})
    for body in [{"_default_message_ttl": 1}, [1], {"x": "y" * 70000}, {"_flavor": "nope"}]:
        ask("PUT", "/v2/queues/c", body)
    for raw in [b"{", b'{"a":99999999999999999999}']:
        ask("PUT", "/v2/queues/c", raw=raw)
    ask("PUT", "/v2/queues/c", raw=b"a=b", kind="application/x-www-form-urlencoded")
    ask("GET", "/v2/queues/b")
    for query in ["limit=1&detailed=true", "limit=1&with_count=true", "name=b", "x=1"]:
        ask("GET", "/v2/queues?" + query)
    ask("GET", "/v2/queues?detailed=True")
    step = {"op": "replace", "path": "/metadata/x", "value": 2}
    ask("PATCH", "/v2/queues/b", [step])
    add = {"op": "add", "path": "/metadata/y", "value": {"z": 1}}
    ask("PATCH", "/v2/queues/b", [step, add], kind=PATCH)
    # Null is a value, of what is reserved the default.
    for key in ["n", "_default_message_ttl"]:
        null = {"op": "add", "path": "/metadata/" + key, "value": None}
        ask("PATCH", "/v2/queues/b", [null], kind=PATCH)
    for bad in [
        dict(step, path="/metadata/no"), dict(step, op="mv"), dict(step, path="/x"),
        {"op": "remove", "path": "/metadata/x"}, {"op": "add", "path": "/metadata/x"},
    ]:
        ask("PATCH", "/v2/queues/b", [bad], kind=PATCH)
    ask("PATCH", "/v2/queues/nope", [add], kind=PATCH)
    ask("PATCH", "/v2/queues/b", {}, kind=PATCH)
    ask("PATCH", "/v2/queues/b", [], kind=PATCH)
    ask("GET", "/v2/queues/a/stats")
    ask("GET", "/v2/queues/nope/stats")


def messages(ask):
    path = "/v2/queues/a/messages"
    ask("GET", path)
    one = {"ttl": 60, "body": 1}
    for body in [
        {}, {"messages": []}, {"messages": {}}, {"messages": [{}]}, [one], {"messages": [1]},
        {"messages": [{"ttl": 60, "body": "x" * 262200}]},
    ]:
        ask("POST", path, body)
    for ttl in [1, "60", True, None, 60.5]:
        ask("POST", path, {"messages": [dict(one, ttl=ttl)]})
    for raw in [b"", b"nope", b'{"messages":[{"ttl":60,"body":99999999999999999999}]}']:
        ask("POST", path, raw=raw)
    ask("DELETE", "/v2/queues/a")
    ask("PUT", "/v2/queues/a")
    five = [{"ttl": 300, "body": {"n": n}, "what": 1} for n in range(5)]
    posted, _ = ask("POST", path, {"messages": five})
    first, ids = posted["resources"][0], [one.split("/")[-1] for one in posted["resources"]]
    ask("GET", path + "?echo=true&limit=2")
    ask("GET", path, headers=TWO)
    page, _ = ask("GET", path + "?limit=3", headers=TWO)
    after = page["links"][0]["href"].split("marker=")[1].split("&")[0]
    ask("GET", f"{path}?limit=3&marker={after}", headers=TWO)
    ask("GET", f"{path}?limit=3&marker={ids[4]}", headers=TWO)
    for query in ["limit=0", "limit=21", "limit=x", "marker=zz", "echo=maybe"]:
        ask("GET", f"{path}?{query}", headers=TWO)
    for one in [first, path + "/nope", f"{path}/{UNKNOWN}"]:
        ask("GET", one)
    for some in [",".join(ids[:2]), "nope", ""]:
        ask("GET", f"{path}?ids={some}")
    ask("GET", "/v2/queues/a/stats")
    return ids


def claims(ask, ids):
    path, of = "/v2/queues/a/claims", "/v2/queues/a/messages"
    for body in [{"ttl": 1, "grace": 60}, {"ttl": 100, "grace": 1}, {"ttl": "x"}]:
        ask("POST", path, body)
    ask("POST", path + "?limit=0", {})
    ask("POST", path + "?limit=21", {})
    claimed, claim = ask("POST", path + "?limit=2", {"ttl": 100, "grace": 60})
    held, free = claimed["messages"][0]["href"], claimed["messages"][0]["href"].split("?")[0]
    ask("GET", claim)
    ask("GET", of + "?include_claimed=true", headers=TWO)
    ask("GET", free)
    ask("GET", "/v2/queues/a/stats")
    ask("DELETE", free)
    for wrong in ["nope", UNKNOWN]:
        ask("DELETE", f"{free}?claim_id={wrong}")
    ask("DELETE", f"{of}/{ids[4]}?claim_id={claim.split('/')[-1]}")
    ask("DELETE", held)
    ask("DELETE", held)
    ask("PATCH", claim, {"ttl": 200, "grace": 60})
    ask("PATCH", claim, {"ttl": 1})
    ask("PATCH", path + "/nope", {"ttl": 100})
    ask("GET", path + "/nope")
    ask("GET", claim)
    for method in ["DELETE", "DELETE", "GET"]:
        ask(method, claim)
    ask("PATCH", claim, {"ttl": 100, "grace": 60})
    ask("DELETE", path + "/nope")
    _, claim = ask("POST", path)
    ask("POST", path)
    for query in [f"ids={ids[1]}&pop=1", "pop=0", "pop=21", "ids=nope", "pop=x"]:
        ask("DELETE", f"{of}?{query}")
    ask("DELETE", of)
    ask("DELETE", claim)
    for query in ["pop=1", f"ids={ids[2]},{ids[3]}", "pop=10", "pop=10"]:
        ask("DELETE", f"{of}?{query}")


def rest(ask):
    path = "/v2/queues/a/share"
    for body in [
        {}, {"paths": ["nope"]}, {"x": 1}, {"expires": "2020-01-01T00:00:00"}, {"expires": 5},
        {"paths": ["messages", "claims"], "methods": ["GET", "POST"]},
    ]:
        ask("POST", path, body)
    ask("POST", path)
    path = "/v2/queues/a/purge"
    ask("POST", path)
    for body in [{}, {"resource_types": ["x"]}, {"resource_types": ["messages"]}]:
        ask("POST", path, body)
    ask("POST", "/v2/queues/nope/purge")
    for method, path in [
        ("PUT", "/v2/queues/a/messages"), ("PUT", "/v2/queues"), ("DELETE", "/v2/queues/a/claims"),
        ("GET", "/v2/queues/a/claims"), ("POST", "/v2/queues/a"), ("POST", "/v2/health"),
        ("GET", "/v2/health"), ("GET", "/v2/"),
    ]:
        ask(method, path)


def subscriptions(ask, of="/v2/queues/a"):
    path = of + "/subscriptions"
    hook, other = "http://hook.invalid/one", "http://hook.invalid/two"
    ask("GET", path)
    for body in [
        {}, [], {"subscriber": "ftp://hook.invalid/"}, {"subscriber": "hook"}, {"ttl": 600},
        {"subscriber": hook, "ttl": 59}, {"subscriber": hook, "ttl": "600"},
        {"subscriber": hook, "options": [1]}, {"subscriber": hook, "options": "x"},
        {"subscriber": hook, "ttl": 10 ** 17},
        {"subscriber": hook, "options": {"_retry_policy": {"minimum_delay": "x"}}},
        {"subscriber": hook, "options": {"_retry_policy": {
            "minimum_delay": 1, "maximum_delay": 2, "retry_backoff_function": "exponential",
        }}},
        {"subscriber": hook, "options": {"_retry_policy": {"retry_backoff_function": "none"}}},
        {"subscriber": hook, "options": {"a": {"b": 2}}},
    ]:
        ask("POST", path, body)
    for raw in [b"", b"{", b'{"subscriber":"http://hook.invalid/","ttl":99999999999999999999}']:
        ask("POST", path, raw=raw)
    made, _ = ask("POST", path, {"subscriber": other, "ttl": 600, "options": {"a": {"b": 1}}})
    ask("POST", path, {"subscriber": other, "ttl": 700})
    one = f"{path}/{made['subscription_id']}"
    ask("GET", one)
    ask("GET", path)
    page, _ = ask("GET", path + "?limit=1")
    after = page["links"][0]["href"].split("marker=")[1].split("&")[0]
    ask("GET", f"{path}?limit=1&marker={after}")
    for query in ["limit=0", "limit=21", "limit=x"]:
        ask("GET", f"{path}?{query}")
    for body in [
        {"ttl": 900}, {"options": {"c": 1}}, {}, {"ttl": 1}, {"subscriber": "nope"},
        {"subscriber": hook}, {"subscriber": "http://hook.invalid/three"},
    ]:
        ask("PATCH", one, body)
    ask("GET", one)
    for body in [{"confirmed": True}, {"confirmed": False}, {"confirmed": 1}, {}]:
        ask("PUT", one + "/confirm", body)
    ask("PUT", one + "/confirm", {"confirmed": True})
    ask("POST", path, {"subscriber": "http://hook.invalid/three"})
    for unknown in [f"{path}/{UNKNOWN}", path + "/nope"]:
        ask("GET", unknown)
        ask("PATCH", unknown, {"ttl": 900})
        ask("PUT", unknown + "/confirm", {"confirmed": True})
        ask("DELETE", unknown)
    ask("DELETE", one)
    ask("GET", one)
    for method, path in [("PUT", path), ("POST", one), ("GET", one + "/confirm")]:
        ask(method, path)


def pools(ask):
    uri = {"weight": 10, "uri": POOL}
    ask("GET", "/v2/pools")
    for body in [
        {}, [], {"weight": 10}, {"weight": -1, "uri": POOL}, {"weight": "x", "uri": POOL},
        dict(uri, options=1), dict(uri, nope=1), dict(uri, flavor=1),
        {"weight": 10, "uri": "nothing://x"},
    ]:
        ask("PUT", "/v2/pools/one", body)
    ask("PUT", "/v2/pools/one", raw=b"{")
    ask("PUT", "/v2/pools/one", uri)
    ask("PUT", "/v2/pools/one", dict(uri, weight=20))
    ask("PUT", "/v2/pools/two", {"weight": 10, "uri": POOL + "?dbid=1", "options": {"a": 1}})
    ask("GET", "/v2/pools/one")
    ask("GET", "/v2/pools/two?detailed=true")
    ask("GET", "/v2/pools/nope")
    ask("GET", "/v2/pools?limit=1")
    ask("GET", "/v2/pools?detailed=true")
    for query in ["limit=0", "limit=21", "detailed=x"]:
        ask("GET", "/v2/pools?" + query)
    for body in [{"weight": 5}, {"options": {"b": 2}}, {}, {"nope": 1}, {"weight": "x"}]:
        ask("PATCH", "/v2/pools/one", body)
    ask("PATCH", "/v2/pools/nope", {"weight": 5})
    ask("POST", "/v2/pools/one", {})


def flavors(ask):
    ask("GET", "/v2/flavors")
    for body in [
        {}, [], {"pool_list": []}, {"pool_list": ["nope"]}, {"pool_list": "one"},
        {"pool_list": ["one"], "nope": 1},
    ]:
        ask("PUT", "/v2/flavors/fast", body)
    ask("PUT", "/v2/flavors/fast", {"pool_list": ["one"]})
    ask("PUT", "/v2/flavors/fast", {"pool_list": ["one"]})
    ask("GET", "/v2/flavors/fast")
    ask("GET", "/v2/flavors/nope")
    ask("GET", "/v2/flavors?limit=1")
    ask("GET", "/v2/flavors?detailed=true")
    ask("GET", "/v2/flavors?limit=0")
    ask("DELETE", "/v2/pools/one")
    for body in [{"pool_list": ["two"]}, {"pool_list": ["nope"]}, {}, {"pool_list": []}]:
        ask("PATCH", "/v2/flavors/fast", body)
    ask("PATCH", "/v2/flavors/nope", {"pool_list": ["one"]})
    ask("PUT", "/v2/queues/flavored", {"_flavor": "fast"})
    ask("GET", "/v2/queues/flavored")
    ask("POST", "/v2/flavors/fast", {})
    for path in ["flavors/fast", "flavors/fast", "pools/one", "pools/two", "pools/nope"]:
        ask("DELETE", "/v2/" + path)
    ask("GET", "/v2/flavors/fast")


def topics(ask):
    for method, path in [
        ("GET", "/v2/topics"), ("PUT", "/v2/topics/a"), ("GET", "/v2/topics/a"),
        ("GET", "/v2/topics/a/stats"), ("POST", "/v2/topics/a/purge"),
        ("DELETE", "/v2/topics/a/messages"), ("POST", "/v2/topics/a/claims"),
        ("POST", "/v2/topics/a/share"), ("PUT", "/v2/topics/a%20b"),
    ]:
        ask(method, path)


def talk(url):
    talk = Talk(url)
    common(talk.ask)
    queues(talk.ask)
    claims(talk.ask, messages(talk.ask))
    rest(talk.ask)
    subscriptions(talk.ask)
    pools(talk.ask)
    flavors(talk.ask)
    topics(talk.ask)
    return talk.answers


def main():
    what, url, file = sys.argv[1:]
    got = talk(url)
    if what == "record":
        with open(file, "w") as out:
            out.write("[\n" + ",\n".join(json.dumps(one) for one in got) + "\n]\n")
        return 0
    with open(file) as recorded:
        wanted = json.load(recorded)
    wrong = [] if len(got) == len(wanted) else [f"{len(got)} answers instead of {len(wanted)}"]
    for ours, theirs in zip(got, wanted):
        if ours["status"] == OURS.get(ours["request"], [None])[0]:
            continue
        if ours != theirs:
            wrong.append(f"ours   {json.dumps(ours)}\nZaqar's {json.dumps(theirs)}")
    print("\n".join(wrong) or f"{len(got)} answers as Zaqar's, {len(OURS)} other on purpose")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
