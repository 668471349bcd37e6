"""Let the row name the cache server too, and begin a generation that no other database has."""

import secrets

from peewee import TextField
from playhouse.migrate import migrate

from hello.database.schema import engine_of


def up(migrator, db):
    engine = engine_of(db)
    if "history" not in [column.name for column in db.get_columns("cache_use")]:
        migrate(migrator.add_column("cache_use", "history", TextField(default="")))
    # The cache is suspended, as by a writer that cannot reach it: no worker reads from it until all
    # know the new generation.
    suspended = "clock_timestamp() + interval '5 seconds'" if engine else "CURRENT_TIMESTAMP"
    db.execute_sql(
        f"UPDATE cache_use SET generation = {secrets.randbits(62)}, suspended_until = {suspended}"
    )
    if engine and engine.spreads_tables:
        # Last, since an UPDATE of such a table cannot look at the clock.
        db.execute_sql("SELECT create_reference_table('cache_use')")


def down(migrator, db):
    migrate(migrator.drop_column("cache_use", "history"))
