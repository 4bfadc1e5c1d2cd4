"""A Celery task over RabbitMQ with the `auth` serializer: JSON, signed by both ends.

celery_auth.py client    makes keys, starts the worker, then obeys lines of `CONCURRENCY MILLISECONDS`
celery_auth.py worker TOPIC
"""
import os
import subprocess
import sys
import time

from celery import Celery

from load import SIZE, measured, obey

KEYS = os.path.join(os.environ["PEER_FOLDER"], "celery")


def application(topic):
    app = Celery("peer", broker=os.environ["PEER_ADDRESS"], backend="rpc://")
    app.conf.update(
        security_key=f"{KEYS}/key.pem",
        security_certificate=f"{KEYS}/certificate.pem",
        security_cert_store=f"{KEYS}/*.pem.store",
        task_serializer="auth",
        result_serializer="auth",
        accept_content=["auth"],
        result_accept_content=["auth"],
        task_default_queue=topic,
        # As many as the others' servers take.
        worker_prefetch_multiplier=4,
        broker_connection_retry_on_startup=True,
    )
    app.setup_security()

    @app.task(name="echo")
    def echo(text):
        return text

    return app, echo


def make_keys():
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    os.makedirs(KEYS, mode=0o700)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    for file, content in [
        ("key.pem", private),
        ("certificate.pem", certificate.public_bytes(pem)),
        ("certificate.pem.store", certificate.public_bytes(pem)),
    ]:
        with open(f"{KEYS}/{file}", "wb") as out:
            out.write(content)


def worker(topic):
    app, _ = application(topic)
    app.worker_main(
        ["worker", "--pool", "threads", "--concurrency", "64", "--loglevel", "ERROR",
         "--without-gossip", "--without-mingle", "--without-heartbeat"]
    )


def client():
    make_keys()
    topic = f"peer-celery-{os.getpid()}"
    command = [sys.executable, os.path.abspath(__file__), "worker", topic]
    other = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=end_with_parent
    )
    app, echo = application(topic)
    echo.delay("first").get(timeout=60)
    obey(lambda callers, seconds: in_one_thread(app, echo, callers, seconds))


def in_one_thread(app, echo, callers, seconds):
    """As many calls on their way as there are callers: the `rpc` backend loses results of threads that wait side by side."""
    text, latencies, waiting = "x" * SIZE, [], 0
    begun = time.perf_counter()

    def call():
        nonlocal waiting
        sent = time.perf_counter()
        if sent >= begun + seconds:
            return
        waiting += 1

        def answered(result):
            nonlocal waiting
            if result.get() != text:
                raise AssertionError("the answer is not what was sent")
            latencies.append(time.perf_counter() - sent)
            waiting -= 1
            call()

        echo.delay(text).then(answered)

    for _ in range(callers):
        call()
    while waiting:
        app.backend.result_consumer.drain_events(timeout=60)
    return measured(latencies, time.perf_counter() - begun)


def end_with_parent():
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    {"client": client, "worker": worker}[sys.argv[1]](*sys.argv[2:])
