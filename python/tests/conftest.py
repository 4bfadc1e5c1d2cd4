"""A deployment for each run, on a real RabbitMQ."""

import os
import shutil
import tempfile

import pytest

from deployment import Deployment

# oslo.concurrency takes it from there alone, when it is imported.
os.environ.setdefault("OSLO_LOCK_PATH", tempfile.gettempdir())

# With a virtual host of this run alone.
AMQP = os.environ.get("BULLA_TEST_AMQP")
BULLA = os.environ.get("BULLA_TEST_PROGRAM")


def pytest_report_header():
    import oslo_messaging.version

    version = oslo_messaging.version.version_info.release_string()
    return f"oslo.messaging {version}"


@pytest.fixture(scope="session")
def deployment():
    if not (AMQP and BULLA):
        pytest.skip("BULLA_TEST_AMQP and BULLA_TEST_PROGRAM say where broker and program are")
    folder = tempfile.mkdtemp(prefix="bulla-python-")
    made = Deployment(folder, AMQP, BULLA)
    yield made
    made.close()
    if not os.environ.get("BULLA_TEST_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)
