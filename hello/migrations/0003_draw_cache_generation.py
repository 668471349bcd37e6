"""Begin a generation of the cache that no other database has, and none before."""

import secrets

from peewee import PostgresqlDatabase


def up(migrator, db):
    # As a writer does that cannot reach the cache: nobody reads from it until all know.
    suspended = "CURRENT_TIMESTAMP"
    if isinstance(db, PostgresqlDatabase):
        suspended = "clock_timestamp() + interval '5 seconds'"
    db.execute_sql(
        f"UPDATE cache_use SET generation = {secrets.randbits(62)}, suspended_until = {suspended}"
    )


def down(migrator, db):
    """Change nothing: the release before takes any number."""
