"""Let the row name the cache server too, and begin a generation that no other database has."""

import secrets

from peewee import PostgresqlDatabase, TextField
from playhouse.migrate import migrate


def up(migrator, db):
    migrate(migrator.add_column("cache_use", "history", TextField(default="")))
    # As a writer does that cannot reach the cache: nobody reads from it until all know.
    suspended = "CURRENT_TIMESTAMP"
    if isinstance(db, PostgresqlDatabase):
        suspended = "clock_timestamp() + interval '5 seconds'"
    db.execute_sql(
        f"UPDATE cache_use SET generation = {secrets.randbits(62)}, suspended_until = {suspended}"
    )


def down(migrator, db):
    migrate(migrator.drop_column("cache_use", "history"))
