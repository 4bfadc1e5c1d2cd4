"""Rows of instances as Trove's own models make them: trove_keys.py CONFIG. Prints what is in them, as JSON."""

import json
import sys

from trove.common import cfg

cfg.parse_args(["trove", "--config-file", sys.argv[1]])
from trove.common import debug_utils  # noqa: E402

debug_utils.setup()
from trove.db import get_db_api  # noqa: E402

get_db_api().db_sync(cfg.CONF)
get_db_api().configure_db(cfg.CONF)
from trove.backup.models import Backup  # noqa: E402
from trove.instance import models, tasks  # noqa: E402

Backup  # loaded, so that its table is mapped


def made(name):
    return models.DBInstance.create(
        name=name, task_status=tasks.InstanceTasks.NONE, tenant_id="t", flavor_id="1"
    )


in_use = [made(f"db-{n}") for n in range(3)]
gone, plain = made("gone"), made("plain")
gone.deleted = True
gone.save()
plain.encrypted_key = None
plain.save()
rows = [[row.id, row.encrypted_key, bool(row.deleted)] for row in [*in_use, gone, plain]]
keys = {row.id: models.get_instance_encryption_key(row.id) for row in in_use}
print(json.dumps({"rows": rows, "keys": keys}))
