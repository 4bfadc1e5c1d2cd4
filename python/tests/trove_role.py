"""One process with Trove's own parts: trove_role.py ROLE CONFIG-FILE. It answers what it is asked on its
standard input, one JSON object a line. No line of Trove is changed."""

import json
import sys

ROLE, CONFIG = sys.argv[1:3]
sys.argv = ["trove", "--config-file", CONFIG]


def main():
    from trove.common import cfg

    if ROLE == "guest":
        # Registers the guest's own options.
        import trove.cmd.guest

        trove.cmd.guest
    cfg.parse_args(sys.argv)
    from trove.common import debug_utils

    debug_utils.setup()
    from trove import rpc

    if ROLE != "database":
        rpc.init(cfg.CONF)
    if ROLE != "guest":
        from trove.db import get_db_api

        if ROLE == "database":
            get_db_api().db_sync(cfg.CONF)
        get_db_api().configure_db(cfg.CONF)
    serve(globals()[f"Role_{ROLE}"]())


def serve(role):
    from eventlet import tpool

    print(json.dumps("ready"), flush=True)
    while line := tpool.execute(sys.stdin.readline):
        asked = json.loads(line)
        try:
            answer = {"value": getattr(role, asked["do"])(**asked["with"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), flush=True)


class Role_database:
    def instance(self):
        from trove.backup.models import Backup, BackupState, DBBackup
        from trove.instance import models, service_status, tasks

        Backup  # loaded, so that its table is mapped
        made = models.DBInstance.create(
            name="db", task_status=tasks.InstanceTasks.NONE, tenant_id="t", flavor_id="1"
        )
        models.InstanceServiceStatus.create(
            instance_id=made.id, status=service_status.ServiceStatuses.NEW
        )
        backup = DBBackup.create(
            name="b", tenant_id="t", state=BackupState.NEW, instance_id=made.id, deleted=False
        )
        return {"id": made.id, "backup": backup.id}

    def backup(self, backup):
        from trove.backup.models import DBBackup

        found = DBBackup.find_by(id=backup)
        return [found.state, found.size]

    def status(self, instance):
        from trove.instance import models

        found = models.InstanceServiceStatus.find_by(instance_id=instance)
        return found.get_status().description

    def root_reported(self, instance):
        from trove.extensions.mysql import models

        return models.RootHistory.load(None, instance) is not None


def context():
    from trove.common.context import TroveContext

    return TroveContext(user_id="user", project_id="project", is_admin=True)


class Manager:
    """The inside of a guest agent."""

    from oslo_messaging import Target

    target = Target(version="1.1")
    RPC_API_VERSION = "1.1"

    def __init__(self):
        self.cast = []

    def enable_root(self, context):
        return {"_name": "root", "_password": "s3cret"}

    def list_users(self, context, limit=None, marker=None, include_marker=False):
        raise ValueError("the database is down")

    def restart(self, context):
        self.cast.append("restart")


class Role_guest:
    def __init__(self):
        from oslo_config import cfg
        from oslo_messaging import Target

        from trove import rpc

        self.manager, guest = Manager(), cfg.CONF.guest_id
        # As trove.common.rpc.service does, without periodic tasks.
        target = Target(topic=f"guestagent.{guest}", server=guest, version="1.1")
        key = cfg.CONF.instance_rpc_encr_key
        self.server = rpc.get_server(target, [self.manager], key=key)
        self.server.start()

    def conductor(self, method, args):
        from trove.conductor.api import API

        getattr(API(context()), method)(**args)


class Role_control:
    def guest(self, instance, method, args):
        from trove.guestagent.api import API

        return getattr(API(context(), instance), method)(**args)

    def tasks(self, method, args):
        from trove.taskmanager.api import API

        getattr(API(context()), method)(**args)


if __name__ == "__main__":
    main()
