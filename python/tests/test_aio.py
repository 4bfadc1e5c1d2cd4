"""Calling and serving with asyncio."""

import asyncio

import pytest

import bulla
import bulla.aio


def test_calls_casts_errors_and_denials(deployment):
    asyncio.run(run(deployment.component("volumes"), deployment.component("shop"), deployment.agent("db")))


async def run(volumes, shop, db):
    seen = []

    async def resize(request, args):
        seen.append((request.sender, request.kind, request.context, args))
        request.progress("halfway")
        return {"size": args["gigabytes"], "raw": b"\x00\x01"}

    async def full(request, args):
        raise bulla.aio.MethodError("Full", "no room", {"left": 3})

    async def slow(request, args):
        await asyncio.sleep(30)

    async with await bulla.aio.open(volumes) as serving, await bulla.aio.open(shop) as calling:
        assert serving.principal == "component/volumes"
        methods = {"resize": resize, "disk.full": full, "slow": slow}
        open_to = ["resize", "disk.full", "slow", "missing"]
        await serving.serve(methods, open_to_components=open_to, only_host=True)
        call = calling.call("component/volumes", "resize", {"gigabytes": 20}, context={"user": "ada"})
        assert await call == {"size": 20, "raw": b"\x00\x01"}
        assert seen == [("component/shop", "call", {"user": "ada"}, {"gigabytes": 20})]
        with pytest.raises(bulla.Remote) as failed:
            await calling.call("component/volumes", "full", {}, namespace="disk")
        assert (failed.value.kind, failed.value.details) == ("Full", {"left": 3})
        with pytest.raises(bulla.Remote) as unknown:
            await calling.call("component/volumes", "missing", {})
        assert unknown.value.kind == "NoSuchMethod"
        with pytest.raises(bulla.Timeout):
            await calling.call("component/volumes", "slow", {}, timeout=0.3)
        with pytest.raises(bulla.Refused):
            await calling.call("component/nobody", "resize", {})
        await calling.cast("component/volumes", "resize", {"gigabytes": 1})
        # Many at a time, and one that is given up.
        many = [calling.call("component/volumes", "resize", {"gigabytes": n}) for n in range(50)]
        assert [answer["size"] for answer in await asyncio.gather(*many)] == list(range(50))
        given_up = asyncio.ensure_future(calling.call("component/volumes", "slow", {}))
        await asyncio.sleep(0.1)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert ("component/shop", "cast", None, {"gigabytes": 1}) in seen
        async with await bulla.aio.open(db) as agent:
            with pytest.raises(bulla.Remote) as denied:
                await agent.call("component/volumes", "resize", {"gigabytes": 9})
            assert denied.value.kind == "NotPermitted"


@pytest.mark.parametrize("value", [{1, 2}, object(), 2**64, {"a": object()}, {(1,): 2}])
def test_what_has_no_place_in_a_message(deployment, value):
    peer = bulla.Peer.open(str(deployment.component("shop", "shop-2")))
    with pytest.raises((TypeError, ValueError, OverflowError)):
        peer.call(bulla.Target("component/volumes"), "resize", value)
    nested = []
    for _ in range(70):
        nested = [nested]
    with pytest.raises(ValueError):
        peer.call(bulla.Target("component/volumes"), "resize", nested)
    peer.close()


def test_key_files_tell_who_and_no_secret(deployment):
    key = deployment.component("shop", "shop-3")
    read = bulla.KeyFile(key)
    assert (read.principal, read.incarnation) == ("component/shop", 1)
    for line in key.read_text().splitlines():
        if line.startswith(("key", "signing-key")):
            assert line.split('"')[1] not in repr(read) + str(vars(type(read)))
    with pytest.raises(bulla.Error):
        bulla.KeyFile(key.with_name("missing.key"))
