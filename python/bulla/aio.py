"""Calling and serving with asyncio, for services that know nothing of OpenStack.

::

    connection = await bulla.aio.open("volumes-1.key")

    async def resize(request, args):
        print(request.sender, "resizes", args["volume"])
        return args["gigabytes"]

    await connection.serve({"resize": resize}, open_to_components=["resize"], only_host=True)

and who calls it::

    connection = await bulla.aio.open("api-1.key")
    size = await connection.call("component/volumes", "resize", {"volume": "v-7", "gigabytes": 20})
"""

import asyncio
import logging

import bulla

LOG = logging.getLogger(__name__)


class MethodError(Exception):
    """What a method raises so that its caller is told: a stable name, a text, and details as data."""

    def __init__(self, kind, message, details=None):
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.details = kind, message, details


class Request:
    """What a method knows of the request that it runs. All of it was inside the seal."""

    def __init__(self, job):
        self._job = job
        self.sender = job.sender
        self.kind = job.kind
        self.namespace = job.namespace
        self.method = job.method
        self.version = job.version
        self.message_id = job.message_id
        self.expires = job.expires
        self.context = job.context()

    def progress(self, value=None):
        """Tells the caller how far the work is."""
        self._job.progress(value)

    def cancelled(self):
        """Whether the caller gave up."""
        return self._job.cancelled()


async def open(key_file, bus=None):
    """A connection to the bus that the key file names, or to `bus` (amqp:// or amqps://)."""
    opened = asyncio.to_thread(bulla.Peer.open, str(key_file), bus)
    return Connection(await opened)


class Connection:
    """One process as one principal on one bus."""

    def __init__(self, peer):
        self._peer = peer
        self._methods = {}
        self._running = set()
        self._fileno = None

    @property
    def principal(self):
        """Who this process is: `agent/<id>` or `component/<type>`."""
        return self._peer.principal

    async def call(
        self, target, method, args=None, *, namespace=None, version="1.0", context=None, timeout=60.0
    ):
        """Calls `method` of `target` (`agent/<id>`, `component/<type>`) and waits for its result."""
        begun = self._peer.call(
            bulla.Target(target),
            method,
            args,
            namespace=namespace,
            version=version,
            context=context,
            timeout=timeout,
        )
        return await self._end(begun)

    async def cast(
        self, target, method, args=None, *, namespace=None, version="1.0", context=None, life=3600.0
    ):
        """Sends without waiting for it to run; its id, once the bus took it over."""
        return await self._send("cast", target, method, args, namespace, version, context, life)

    async def fanout(
        self, group, method, args=None, *, namespace=None, version="1.0", context=None, life=3600.0
    ):
        """Sends to every member of `group/<name>`."""
        return await self._send("fanout", group, method, args, namespace, version, context, life)

    async def _send(self, kind, target, method, args, namespace, version, context, life):
        begun = self._peer.send(
            bulla.Target(target),
            method,
            args,
            kind=kind,
            namespace=namespace,
            version=version,
            context=context,
            life=life,
        )
        return await self._end(begun)

    async def _end(self, begun):
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def wake():
            if not ended.done():
                ended.set_result(None)

        begun.on_done(lambda: loop.call_soon_threadsafe(wake))
        try:
            await ended
        except asyncio.CancelledError:
            begun.cancel()
            raise
        return begun.result()

    async def serve(
        self,
        methods,
        *,
        open_to_agents=(),
        open_to_components=(),
        claims=None,
        only_host=False,
        concurrency=None,
    ):
        """Serves async functions of (request, args) by name (`method` or `namespace.method`). `claims` is
        where it is remembered what ran: a folder (beside the key file unless given), or a shared store."""
        loop = asyncio.get_running_loop()
        self._methods = dict(methods)
        await asyncio.to_thread(
            self._peer.serve,
            open_to_agents=list(open_to_agents),
            open_to_components=list(open_to_components),
            claims=claims,
            only_host=only_host,
            concurrency=concurrency,
        )
        self._fileno = self._peer.jobs_fileno()
        loop.add_reader(self._fileno, self._take)

    def _take(self):
        while (job := self._peer.next_job(0.0)) is not None:
            task = asyncio.ensure_future(self._run(job))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, job):
        name = f"{job.namespace}.{job.method}" if job.namespace else job.method
        method = self._methods.get(name)
        if method is None:
            job.fail("NoSuchMethod", f"{self.principal} has no method `{name}`")
            return
        try:
            job.finish(await method(Request(job), job.args()))
        except MethodError as error:
            job.fail(error.kind, error.message, error.details)
        except Exception:
            LOG.exception("The method %s failed", name)
            job.fail("InternalError", "the method failed")

    async def close(self, grace=10.0):
        """Takes nothing new, lets what runs end within `grace` seconds, and leaves the bus."""
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        if self._fileno is not None:
            asyncio.get_running_loop().remove_reader(self._fileno)
        await asyncio.to_thread(self._peer.close, grace)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()
