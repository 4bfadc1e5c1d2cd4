"""The driver ``bulla+rabbit://``: oslo.messaging's rabbit driver, with every message sealed."""

import itertools
import logging
import os
import threading
import uuid

import oslo_messaging
from oslo_messaging import transport as oslo_transport
from oslo_messaging._drivers import amqpdriver, base, common, impl_rabbit
from oslo_serialization import jsonutils

import bulla
from bulla.oslo import failures, waiting
from bulla.oslo.census import Census
from bulla.oslo.connection import Connection, Encoded, is_open
from bulla.oslo.listener import SealedListener, SealedNotificationListener, body_of
from bulla.oslo.settings import Settings

LOG = logging.getLogger(__name__)

SCHEME = "bulla+rabbit"
# Targets that are looked up once.
TARGETS = 10_000
# How long a thread waits for what comes before it looks whether it is to end, in seconds.
LONGEST = 1.0


class BullaRabbitDriver(impl_rabbit.RabbitDriver):
    """Seals what the rabbit driver carries, and takes nothing that is not sealed."""

    def __init__(self, conf, url, default_exchange=None, allowed_remote_exmods=None):
        if url.transport != SCHEME:
            raise oslo_transport.InvalidTransportURL(str(url.transport), f"write {SCHEME}://")
        self.settings = Settings(conf)
        # A key file that can't be used is told at once, and not at the first message.
        self.key = bulla.KeyFile(self.settings.key_file)
        for allowed, what in (
            (self.settings.send_plain, "sends in clear"),
            (self.settings.accept_plain, "takes messages that are not sealed"),
        ):
            if allowed:
                LOG.warning("%s %s until %s", self.key.principal, what, allowed.end)
        plain = oslo_transport.TransportURL(
            conf,
            transport="rabbit",
            virtual_host=url.virtual_host,
            hosts=url.hosts,
            query=url.query,
        )
        super().__init__(conf, plain, default_exchange, allowed_remote_exmods or [])
        self._connection_pool.connection_cls = Connection
        self._sessions = {}
        self._sessions_lock = threading.Lock()
        self._targets = {}

    # What a process has of Bulla: opened when it is needed, in the process that needs it.

    @property
    def session(self):
        session = self._sessions.get(os.getpid())
        return session or self._open_session()

    def _open_session(self):
        with self._sessions_lock:
            session = self._sessions.get(os.getpid())
            if session is None:
                session = Session(self)
                self._sessions[os.getpid()] = session
            return session

    def target_of(self, target):
        """Whom a message for `target` is sealed for."""
        known = (self._get_exchange(target), target.topic, target.server, bool(target.fanout))
        found = self._targets.get(known)
        if found is None:
            found = self._find_target(known[0], target)
            if len(self._targets) < TARGETS:
                self._targets[known] = found
        return found

    def _find_target(self, exchange, target):
        if target.fanout:
            group = self.settings.fanouts.get(target.topic)
            if group is None:
                raise failures.SealError(
                    f"no group is behind fanouts of the topic `{target.topic}`: name it in "
                    "[bulla] fanouts"
                )
            return bulla.Target.named(f"group/{group}", exchange, target.topic)
        principal = self.settings.topics.principal(target.topic, target.server)
        if principal is None:
            raise failures.SealError(
                f"nobody is known to be behind the topic `{target.topic}`: name them in [bulla] topics"
            )
        return bulla.Target.named(principal, exchange, target.topic, target.server)

    # Sending.

    def send(
        self,
        target,
        ctxt,
        message,
        wait_for_reply=None,
        timeout=None,
        call_monitor_timeout=None,
        retry=None,
        transport_options=None,
    ):
        if self.settings.send_plain:
            return super().send(
                target,
                ctxt,
                message,
                wait_for_reply,
                timeout,
                call_monitor_timeout,
                retry=retry,
                transport_options=transport_options,
            )
        call = self._seal(target, ctxt, message, wait_for_reply, timeout)
        try:
            body = call.body(self._reply_q if wait_for_reply else None, call_monitor_timeout)
            self.publish(
                Encoded(body),
                self._get_exchange(target),
                target.topic,
                target.server,
                target.fanout,
                timeout=timeout,
                retry=retry,
                transport_options=transport_options,
            )
            if not wait_for_reply:
                return None
            result = self.finish_call(call, message["method"], call_monitor_timeout)
            if isinstance(result, Exception):
                raise result
            return result
        finally:
            if not call.done():
                call.cancel()

    def publish(self, body, exchange, topic, server, fanout, *, timeout=None, retry=None, **options):
        """Has the rabbit driver publish a sealed request."""
        with self._get_connection(common.PURPOSE_SEND, retry) as conn:
            if fanout:
                return conn.fanout_send(topic, body, retry=retry)
            topic = f"{topic}.{server}" if server else topic
            return conn.topic_send(exchange, topic, body, timeout=timeout, retry=retry, **options)

    def _seal(self, target, ctxt, message, wait_for_reply, timeout):
        to, method, args = self.target_of(target), message["method"], message.get("args") or {}
        routed = {
            "namespace": message.get("namespace"),
            "version": message.get("version") or "1.0",
        }

        def begin(peer, common_to_both):
            if wait_for_reply:
                return peer.call(
                    to,
                    method,
                    args,
                    timeout=min(timeout or 60, 86400),
                    reply_queue=self._get_reply_q(),
                    **routed,
                    **common_to_both,
                )
            kind = "fanout" if target.fanout else "cast"
            life = self.settings.cast_life
            return peer.send(to, method, args, kind=kind, life=life, **routed, **common_to_both)

        return self._sealed(begin, ctxt)

    def _sealed(self, begin, ctxt):
        common_to_both = {
            "context": ctxt if isinstance(ctxt, dict) else ctxt.to_dict(),
            "other": jsonutils.to_primitive,
        }
        try:
            call = begin(self.session.peer, common_to_both)
            waiting.until(call.is_sealed, call.wait_sealed, call.sealed_fileno)
            if call.has_frame():
                return call
            call.result()
            raise failures.SealError("the message was not sealed")
        except bulla.Error as error:
            raise failures.local(error, self._allowed_remote_exmods) from error

    def send_notification(self, target, ctxt, message, version, retry=None):
        if self.settings.send_plain:
            return super().send_notification(target, ctxt, message, version, retry=retry)
        behind = self.behind_notifications(target.topic)
        if behind is None:
            raise failures.SealError(
                f"nobody is known to be behind the notifications of `{target.topic}`: name them in "
                "[bulla] topics"
            )
        to = bulla.Target.named(behind, self._get_exchange(target), target.topic)
        call = self._sealed(
            lambda peer, common_to_both: peer.send(
                to,
                "notify",
                message,
                # A policy judges it as any other method that is not answered.
                kind="cast",
                namespace="notification",
                life=self.settings.cast_life,
                **common_to_both,
            ),
            ctxt,
        )
        try:
            # Both drivers' messages look the same under the seal.
            body, exchange = Encoded(call.body()), self._get_exchange(target)
            with self._get_connection(common.PURPOSE_SEND, retry) as conn:
                conn.notify_send(exchange, target.topic, body, retry=retry)
        finally:
            if not call.done():
                call.cancel()

    def behind_notifications(self, topic):
        """Who is behind a topic of notifications, which has the priority behind its last dot."""
        principal = self.settings.topics.principal
        return principal(topic) or principal(topic.rpartition(".")[0])

    def finish_call(self, call, method, call_monitor_timeout):
        """Waits for a call's end: its result, or the exception to raise."""
        while True:
            patience = None
            if call_monitor_timeout:
                patience = call_monitor_timeout - call.silent_for()
                if patience <= 0:
                    return oslo_messaging.MessagingTimeout(
                        f"No sign of life from the receiver of the call of {method}."
                    )
            if waiting.until(call.done, call.wait, call.fileno, patience):
                break
        try:
            return call.result()
        except bulla.Error as error:
            return failures.local(error, self._allowed_remote_exmods)

    # Replies.

    def _get_reply_q(self):
        with self._reply_q_lock:
            if self._reply_q is None:
                named = getattr(self, "_get_reply_queue_name", None)
                reply_q = named() if named else "reply_" + uuid.uuid4().hex
                conn = self._get_connection(common.PURPOSE_LISTEN)
                self._waiter = Waiter(reply_q, conn, self._allowed_remote_exmods, self)
                self._reply_q = reply_q
                self._reply_q_conn = conn
            return self._reply_q

    # Serving.

    def listen(self, target, batch_size, batch_timeout):
        return SealedListener(self, target, batch_size, batch_timeout)

    def listen_for_notifications(self, targets_and_priorities, pool, batch_size, batch_timeout):
        listener = SealedNotificationListener(self, targets_and_priorities, pool)
        return base.PollStyleListenerAdapter(listener, batch_size, batch_timeout)

    def cleanup(self):
        super().cleanup()
        session = self._sessions.pop(os.getpid(), None)
        if session:
            session.close()


class Waiter(amqpdriver.ReplyWaiter):
    """Takes replies from this process's queue. The sealed ones it hands over; a reply in clear counts
    only for a request that was sent in clear."""

    def __init__(self, reply_q, conn, allowed_remote_exmods, driver):
        self._driver = driver
        self._queue = reply_q
        self._last = None
        conn.connection.on_taken = self._acknowledge
        super().__init__(reply_q, conn, allowed_remote_exmods)

    def take_raw(self, message):
        """Whether it is a sealed reply, which is handed over then."""
        try:
            if not self._driver.session.peer.deliver_if_sealed(self._queue, message.body):
                return False
        except (bulla.Error, TypeError) as error:
            LOG.warning("A reply was refused: %s", error)
        self._last = message
        return True

    def _acknowledge(self):
        """All that was taken, at once."""
        last, self._last = self._last, None
        if last is not None and is_open(last):
            last.channel.basic_ack(last.delivery_tag, multiple=True)

    def poll(self):
        while not self._thread_exit_event.is_set():
            try:
                self.conn.consume(timeout=LONGEST)
            except common.Timeout:
                pass
            except Exception:
                LOG.exception("Taking replies failed; it is tried again.")

    def __call__(self, message):
        sealed = message.get("result")
        if not (isinstance(sealed, dict) and "bulla" in sealed):
            if message.get("_msg_id") in self.waiters._queues:
                return super().__call__(message)
            message.acknowledge()
            return LOG.warning("A reply that is not sealed was refused.")
        message.acknowledge()
        try:
            self._driver.session.peer.deliver_reply(self._queue, body_of(message))
        except (bulla.Error, TypeError, ValueError) as error:
            LOG.warning("A reply was refused: %s", error)


class Session:
    """A process's peer, and the thread that publishes what no other waits to publish."""

    def __init__(self, driver):
        self._driver = driver
        settings = driver.settings
        exchange = driver._default_exchange
        groups = [(exchange, topic, group) for topic, group in settings.fanouts.items()]
        try:
            self.peer = bulla.Peer.open(settings.key_file, settings.bus, groups)
        except bulla.Error as error:
            raise failures.SealError(str(error)) from error
        self.census = Census(settings.key_file)
        # Messages that came and were not handed to Bulla.
        self.refused = 0
        self._listeners, self._numbers = {}, itertools.count(1)
        self._serves = False
        self._lock = threading.Lock()
        self._jobs = None
        self._closed = False
        self._thread = threading.Thread(target=self._run_errands, daemon=True)
        self._thread.start()

    def serve(self, listener):
        """The number under which a listener's messages are known."""
        with self._lock:
            if not self._serves:
                self._serve()
            number = next(self._numbers)
            self._listeners[number] = listener
            return number

    def _serve(self):
        settings = self._driver.settings
        try:
            self.peer.serve(
                open_to_agents=settings.open_to_agents,
                open_to_components=settings.open_to_components,
                claims=settings.claims,
                # The bus is told before a method runs, as oslo.messaging's servers do.
                log=True,
                only_host=settings.only_host,
                concurrency=settings.concurrency,
            )
        except bulla.Error as error:
            raise failures.SealError(str(error)) from error
        self._serves = True

    def begin(self):
        """A listener takes what is handed over."""
        with self._lock:
            if self._jobs is None:
                self._jobs = threading.Thread(target=self._run_jobs, daemon=True)
                self._jobs.start()

    def leave(self, listener):
        with self._lock:
            self._listeners.pop(listener.number, None)

    def _run_jobs(self):
        """What came out later than its listener waited, or natively, goes to who serves it."""
        while not self._closed:
            job = waiting.following(self.peer.next_job, self.peer.jobs_fileno, 1.0)
            if job is None:
                continue
            with self._lock:
                # What came natively may be for any: the first was here first.
                listener = self._listeners.get(job.listener) or next(
                    iter(self._listeners.values()), None
                )
            if listener is None:
                # Nobody runs it any more; its sender hears nothing, and may ask again.
                LOG.warning("A request came when nobody served any more: %s", job.method)
                continue
            try:
                listener.accept(job)
            except Exception:
                LOG.exception("A request could not be handed over")

    def close(self):
        self._closed = True
        self.peer.close(1.0)
        self.census.write()

    def _run_errands(self):
        while not self._closed:
            try:
                errand = waiting.following(self.peer.next_errand, self.peer.errands_fileno, 1.0)
            except bulla.Error:
                return
            if errand is None:
                continue
            try:
                self._publish(errand)
                errand.done()
            except Exception as error:
                LOG.warning("A sealed message could not be published: %s", error)
                errand.done(str(error))

    def _publish(self, errand):
        body = Encoded(errand.body())
        if errand.kind == "request":
            where = errand.exchange, errand.topic, errand.server, errand.fanout
            return self._driver.publish(body, *where)
        with self._driver._get_connection(common.PURPOSE_SEND) as conn:
            return conn.direct_send(errand.reply_queue, body)
