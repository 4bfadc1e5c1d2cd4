"""Taking messages: what is sealed goes through Bulla's pipeline before oslo's dispatcher sees a method
name; what is not is refused, unless the settings still allow it.

A thread of each listener takes from the bus, opens and judges, and hands over what may run. What comes out
later, because it had to wait for something, comes from a thread of the process's session.
"""

import logging
import queue
import threading
import time

from oslo_messaging._drivers import amqpdriver, base, common

import bulla
from bulla.oslo import failures, waiting
from bulla.oslo.connection import is_open
from bulla.oslo.incoming import SealedIncoming, SealedNotification

LOG = logging.getLogger(__name__)

# How long what was taken from the bus may take to be judged when a server stops, in seconds.
LAST_GRACE = 15
# How long a thread waits for a message before it looks whether it is to stop, at the most, in seconds.
LONGEST = 1.0
# How long a notification that is put back waits, in seconds.
AGAIN_AFTER = 1.0


def body_of(message):
    """What the bus brought, before anything was made of it: JSON can be read in more than one way."""
    body = message._raw_message.body
    return body.encode() if isinstance(body, str) else bytes(body)


class Taker:
    """What the rabbit driver calls for a message from a place."""

    def __init__(self, listener, place):
        self._listener, self._place = listener, place

    def __call__(self, message):
        return self._listener.take(self._place, message)

    def take_raw(self, message):
        """Takes a message that nothing was made of yet, if it is sealed."""
        return self._listener.take_raw(self._place, message)


class Taking:
    """What listeners have in common: taking one message from the bus."""

    # The least time that a thread waits for a message before it looks what else is to be done, in seconds.
    shortest = LONGEST
    # Whether messages can be acknowledged together: not where some in clear are, later.
    acknowledges_together = True

    def taker(self, place):
        """A callback for what comes from `place`; None for where nothing sealed is taken."""
        return Taker(self, place)

    def take(self, place, message):
        """Takes what oslo.messaging read."""
        if self._shutdown.is_set():
            # Nobody would run it. Not acknowledged, it goes back to its queue.
            return None
        if "bulla" not in message and self.may_be_plain:
            return self._take_plain(message)
        try:
            message.acknowledge()
        except Exception as error:
            return LOG.warning("A message was given up, its acknowledgement failed: %s", error)
        if "bulla" not in message:
            return self.refuse("it is not sealed")
        try:
            # Why it can't be read is told, and counted.
            self._hand(place, self._peer.read(body_of(message)))
        except (bulla.Error, TypeError, ValueError) as error:
            self.refuse(str(error))

    def take_raw(self, place, message):
        """Whether it is sealed; then it is handed over with what came beside it."""
        if self._shutdown.is_set():
            return True
        sealed = self._peer.read_if_sealed(message.body)
        if sealed is not None:
            self._came.append((place, message, sealed))
        return sealed is not None

    def _take_all(self):
        """Acknowledges what came at once, and hands it over."""
        came, self._came = self._came, []
        came = [one for one in came if is_open(one[1])]
        if not came:
            return
        try:
            if self.acknowledges_together:
                last = came[-1][1]
                last.channel.basic_ack(last.delivery_tag, multiple=len(came) > 1)
            else:
                for _, message, _ in came:
                    message.channel.basic_ack(message.delivery_tag)
        except Exception as error:
            return LOG.warning(
                "%d messages were given up, their acknowledgement failed: %s", len(came), error
            )
        for place, _, sealed in came:
            try:
                self._hand(place, sealed)
            except (bulla.Error, TypeError, ValueError) as error:
                self.refuse(str(error))
            except Exception:
                LOG.exception("A request could not be handed over")

    def _hand(self, place, sealed):
        if place is None:
            return self.refuse("nothing sealed is taken here")
        while True:
            taken = self._peer.deliver(place, sealed, self.number)
            if taken is not False:
                break
            waiting.pause()
        if taken is not True:
            self.accept(taken)

    @property
    def may_be_plain(self):
        return bool(self.driver.settings.accept_plain)

    def _take_plain(self, message):
        self.session.census.note(self.topic, message)
        # The rabbit driver's own, which acknowledges as it does.
        self(message)
        while self.incoming:
            self.hand_over(self.incoming.pop(0))

    def refuse(self, why):
        self.session.refused += 1
        LOG.warning("A message was refused: %s", why)

    def take_from_bus(self):
        """Takes until it is stopped."""
        timeout = self.shortest
        while not self._shutdown.is_set():
            self._message_operations_handler.process()
            try:
                self.conn.consume(timeout=timeout)
            except common.Timeout:
                timeout = min(timeout * 2, LONGEST)
            except Exception:
                LOG.exception("Taking messages failed; it is tried again.")
                waiting.pause(1.0)
            else:
                timeout = self.shortest

    def join(self, driver, topic):
        self.session, self.topic = driver.session, topic
        self._peer, self._came = self.session.peer, []
        self.conn.connection.on_taken = self._take_all
        self._thread = threading.Thread(target=self.take_from_bus, daemon=True)
        self.number = self.session.serve(self)

    def stop_taking(self):
        self._shutdown.set()
        self.conn.stop_consuming()
        if self._thread.is_alive():
            self._thread.join()
        self._message_operations_handler.process_in_background()
        # What was taken before the end is still run.
        until = time.monotonic() + LAST_GRACE
        while self._peer.pending() and time.monotonic() < until:
            waiting.pause()

    def leave(self):
        self._message_operations_handler.stop()
        self.conn.close()
        self.session.leave(self)


class SealedListener(Taking, amqpdriver.RpcAMQPListener):
    """The queues of one target."""

    def __init__(self, driver, target, batch_size, batch_timeout):
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
        super().__init__(driver, driver._get_connection(common.PURPOSE_LISTEN))
        self.batch_size, self.batch_timeout = batch_size, batch_timeout
        self.on_incoming_callback = None
        self.join(driver, topic)
        takers = {}
        for kind, place in places.items():
            if mine[kind]:
                self._peer.listen(place)
            takers[kind] = self.taker(place if mine[kind] else None)
        self.conn.declare_topic_consumer(
            exchange_name=exchange, topic=topic, callback=takers["topic"]
        )
        self.conn.declare_topic_consumer(
            exchange_name=exchange, topic=f"{topic}.{server}", callback=takers["server"]
        )
        self.conn.declare_fanout_consumer(topic, takers["fanout"])

    def start(self, on_incoming_callback):
        self.on_incoming_callback = on_incoming_callback
        self._thread.start()
        self.session.begin()

    def accept(self, job):
        self.hand_over(SealedIncoming(self, job))

    def hand_over(self, incoming):
        self.on_incoming_callback([incoming])

    def stop(self):
        self.stop_taking()

    def cleanup(self):
        self.leave()


class SealedNotificationListener(Taking, amqpdriver.NotificationAMQPListener):
    """The queues of notifications of some topics and priorities."""

    # Those in clear are acknowledged when they were worked on, by the thread that takes.
    acknowledges_together = False

    def __init__(self, driver, targets_and_priorities, pool):
        super().__init__(driver, driver._get_connection(common.PURPOSE_LISTEN))
        self._ready = queue.Queue()
        if self.may_be_plain:
            self.shortest = amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MIN
        topics = sorted({target.topic for target, _ in targets_and_priorities})
        self.join(driver, ",".join(topics))
        for target, priority in targets_and_priorities:
            exchange, topic = driver._get_exchange(target), f"{target.topic}.{priority}"
            behind = driver.behind_notifications(topic)
            place = bulla.Place(exchange, topic) if behind == driver.key.principal else None
            if place is not None:
                self._peer.listen(place)
            elif not driver.settings.accept_plain:
                raise failures.SealError(
                    f"the key is {driver.key.principal}'s, but behind the notifications of `{topic}` "
                    f"is {behind or 'nobody'}: see [bulla] topics"
                )
            self.conn.declare_topic_consumer(
                exchange_name=exchange, topic=topic, callback=self.taker(place), queue_name=pool
            )
        self._thread.start()
        self.session.begin()

    def accept(self, job):
        self.hand_over(SealedNotification(self, job))

    def hand_over(self, incoming):
        self._ready.put(incoming)

    def again(self, incoming):
        later = threading.Timer(AGAIN_AFTER, self._ready.put, (incoming,))
        later.daemon = True
        later.start()

    @base.batch_poll_helper
    def poll(self, timeout=None):
        # Not for ever: when it stops, nothing comes any more.
        try:
            return self._ready.get(timeout=0.5 if timeout is None else min(timeout, 0.5))
        except queue.Empty:
            return None

    def stop(self):
        self.stop_taking()

    def cleanup(self):
        self.leave()
