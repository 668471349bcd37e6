"""The database is restored to the moment before a mistake: docs/runbook.md."""

from datetime import datetime

from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import PATIENT, Service, load, migrate
from tests.support.writes import WRITERS, Writes, stored


def _now(cluster: Cluster) -> datetime:
    [(now,)] = cluster.query("SELECT clock_timestamp()")
    assert isinstance(now, datetime)
    return now


def _archived(cluster: Cluster) -> None:
    """Wait until everything that was written so far is in the archive."""
    [(segment,)] = cluster.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    cluster.query("SELECT pg_switch_wal()")
    sql = f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver"
    eventually(lambda: cluster.query(sql)[0][0], within=30)


def test_a_restore_to_before_a_mistake_has_every_acknowledged_date(cluster: Cluster) -> None:
    archive = cluster.archive_log()
    cluster.restart()
    done = migrate(cluster.uri())
    assert done.returncode == 0, done.stderr
    writes = Writes()

    with Service(DB_URI=cluster.uri(), **PATIENT).wait_until() as service:
        with load(service, WRITERS, writes):
            writes.go_on()
            backup = cluster.back_up()
            writes.go_on()
            # What was acknowledged by now was committed before the server's clock said this.
            acknowledged = dict(writes.acknowledged)
            before = _now(cluster)
            writes.go_on()
            cluster.query("DELETE FROM users")  # the mistake
            writes.go_on()
        # Nobody will ask for this one again.
        with service.client() as client:
            assert client.put("later", "1990-05-17").status == 204
    _archived(cluster)

    restored = Cluster().restore(backup, archive, before).start()
    try:
        # It is a primary of its own once it has reached the moment.
        eventually(lambda: restored.query("SELECT NOT pg_is_in_recovery()")[0][0], within=30)
        found = stored(restored)
        assert "later" not in found
        writes.acknowledged = acknowledged
        assert writes.lost(found) == []
        # The service would go on with it as it is.
        assert migrate(restored.uri(), "--check").returncode == 0
        restored.query("UPDATE users SET date_of_birth = '1990-05-17'")
        # The server that the mistake was made on is as it was.
        assert stored(cluster)["later"] == "1990-05-17"
    finally:
        restored.destroy()
