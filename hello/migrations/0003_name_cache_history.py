"""Let the row name the cache server too, and begin a generation that no other database has."""

import secrets

from peewee import PostgresqlDatabase, TextField
from playhouse.migrate import migrate


def up(migrator, db):
    migrate(migrator.add_column("cache_use", "history", TextField(default="")))
    # The cache is suspended, as by a writer that cannot reach it: no worker reads from it until all
    # know the new generation.
    suspended = "CURRENT_TIMESTAMP"
    if isinstance(db, PostgresqlDatabase):
        suspended = "clock_timestamp() + interval '5 seconds'"
    db.execute_sql(
        f"UPDATE cache_use SET generation = {secrets.randbits(62)}, suspended_until = {suspended}"
    )


def down(migrator, db):
    migrate(migrator.drop_column("cache_use", "history"))
