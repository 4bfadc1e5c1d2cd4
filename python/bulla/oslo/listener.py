"""Taking requests: what is sealed goes through Bulla's pipeline before oslo's dispatcher sees a method
name; what is not is refused, unless the settings still allow it."""

import logging
import threading
import time

from oslo_messaging._drivers import amqpdriver, base, common
from oslo_serialization import jsonutils

import bulla
from bulla.oslo import failures, waiting

LOG = logging.getLogger(__name__)

# How long what was taken from the bus may take to be judged when a server stops, in seconds.
LAST_GRACE = 15
_CALL = {"bulla", "_unique_id", "_msg_id", "_reply_q", "_timeout"}
_CAST = {"bulla", "_unique_id"}


class SealedIncoming(amqpdriver.AMQPIncomingMessage):
    """A request whose sender is proven, that may run, and has not run before."""

    def __init__(self, listener, job):
        reply_q, msg_id, timeout = job.way or (None, None, None)
        message = {"method": job.method, "args": job.args() or {}, "version": job.version}
        if job.namespace is not None:
            message["namespace"] = job.namespace
        context = job.context() or {}
        super().__init__(
            listener,
            context,
            message,
            job.message_id,
            msg_id,
            reply_q,
            timeout,
            listener._obsolete_reply_queues,
            listener._message_operations_handler,
        )
        self.sender = job.sender
        self._job = job

    def reply(self, reply=None, failure=None):
        answer = self._end(reply, failure)
        waiting.until(answer.done, answer.wait, answer.fileno)
        frame = answer.frame()
        if frame is not None:
            super().reply({"bulla": frame}, None)

    def _end(self, reply, failure):
        to_primitive = jsonutils.to_primitive
        if failure:
            tell = self.listener.driver.settings.tell_tracebacks
            kind, message, details, trace = failures.describe(failure, tell)
            return self._job.fail(kind, message, details, trace, to_primitive)
        try:
            return self._job.finish(reply, to_primitive)
        except (TypeError, ValueError, OverflowError) as error:
            LOG.error("The result of %s can't be sent: %s", self._job.method, error)
            return self._job.fail("InternalError", "the method's result can't be sent")

    def heartbeat(self):
        self._job.progress()


class SealedListener(amqpdriver.RpcAMQPListener):
    """The queues of one target."""

    def __init__(self, driver, conn):
        super().__init__(driver, conn)
        self._session = driver.session
        self._peer = driver.session.peer
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._refused = 0

    @classmethod
    def adapted(cls, driver, target, batch_size, batch_timeout):
        exchange, topic, server = driver._get_exchange(target), target.topic, target.server
        settings, me = driver.settings, driver.key.principal
        places = {
            "topic": bulla.Place(exchange, topic),
            "server": bulla.Place(exchange, topic, server=server),
            "fanout": bulla.Place(exchange, topic, member=me.replace("/", ".")),
        }
        mine = {
            "topic": settings.topics.principal(topic) == me,
            "server": settings.topics.principal(topic, server) == me,
            "fanout": topic in settings.fanouts,
        }
        if not (mine["topic"] or mine["server"]):
            behind = settings.topics.principal(topic) or "nobody"
            raise failures.SealError(
                f"the key is {me}'s, but behind the topic `{topic}` is {behind}: see [bulla] topics"
            )
        conn = driver._get_connection(common.PURPOSE_LISTEN)
        listener = cls(driver, conn)
        driver.session.serve(listener)
        takers = {}
        for kind, place in places.items():
            if mine[kind]:
                listener._peer.listen(place)
            takers[kind] = listener._taker(place if mine[kind] else None)
        conn.declare_topic_consumer(
            exchange_name=exchange, topic=topic, callback=takers["topic"]
        )
        conn.declare_topic_consumer(
            exchange_name=exchange, topic=f"{topic}.{server}", callback=takers["server"]
        )
        conn.declare_fanout_consumer(topic, takers["fanout"])
        listener._feeder.start()
        return base.PollStyleListenerAdapter(listener, batch_size, batch_timeout)

    # From the bus.

    def _taker(self, place):
        def take(message):
            if self._shutdown.is_set():
                # Nobody would run it. Not acknowledged, it goes back to its queue.
                return None
            try:
                message.acknowledge()
            except Exception as error:
                return LOG.warning("A request was given up, its acknowledgement failed: %s", error)
            if "bulla" not in message:
                return self._take_plain(message)
            try:
                self._take_sealed(place, message)
            except (bulla.Error, TypeError, ValueError) as error:
                self._refuse(str(error))

        return take

    def _take_sealed(self, place, message):
        is_call = "_msg_id" in message
        if set(message) != (_CALL if is_call else _CAST):
            return self._refuse("it has other members than a sealed message has")
        if place is None:
            return self._refuse("nothing sealed is taken here")
        timeout = message.get("_timeout")
        if timeout is not None and not isinstance(timeout, (int, float)):
            return self._refuse("its _timeout is no number")
        frame, queue, msg_id = message["bulla"], message.get("_reply_q"), message.get("_msg_id")
        while not self._peer.deliver(place, frame, queue, msg_id, timeout):
            waiting.pause()

    def _take_plain(self, message):
        if not self.driver.settings.accept_plain:
            return self._refuse("it is not sealed")
        method = message.get("method")
        LOG.warning("A request that is not sealed was taken (%s), as the settings allow.", method)
        # As the rabbit driver does, but for the acknowledgement.
        amqpdriver.AMQPListener.__call__(self, message)
        while self.incoming:
            self._peer.push(self.incoming.pop(0))

    def _refuse(self, why):
        self._refused += 1
        LOG.warning("A message was refused: %s", why)

    def _feed(self):
        timeout = amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MIN
        while not self._shutdown.is_set():
            try:
                self.conn.consume(timeout=timeout)
            except common.Timeout:
                timeout = min(timeout * 2, amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MAX)
            except Exception:
                LOG.exception("Taking messages failed; it is tried again.")
                waiting.pause(1.0)
            else:
                timeout = amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MIN

    # To oslo's server.

    @base.batch_poll_helper
    def poll(self, timeout=None):
        while not self._shutdown.is_set():
            found = self._next(1.0 if timeout is None else min(timeout, 1.0))
            if found is not None:
                return found
            if timeout is not None:
                timeout -= 1.0
                if timeout <= 0:
                    return None
        # What was taken before the end is still run.
        until = time.monotonic() + LAST_GRACE
        while True:
            found = self._next(0.05)
            if found is not None or not self._peer.pending() or time.monotonic() > until:
                return found

    def _next(self, timeout):
        found = waiting.following(self._peer.next_job, self._peer.jobs_fileno, timeout)
        return SealedIncoming(self, found) if isinstance(found, bulla.Job) else found

    def stop(self):
        self._shutdown.set()
        self.conn.stop_consuming()
        self._feeder.join()

    def cleanup(self):
        self.conn.close()
        if self._session.listener is self:
            self._session.listener = None
