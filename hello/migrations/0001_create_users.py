"""Create the table of users."""

from peewee import (
    SQL,
    BigIntegerField,
    CharField,
    DateField,
    DateTimeField,
)

from hello.database.schema import engine_of


class TimestampField(DateTimeField):
    field_type = "TIMESTAMPTZ"


def up(migrator, db):
    engine = engine_of(db)
    # Usernames are compared byte by byte. A collation of the operating system would be
    # slower, and an index sorted by one breaks when a replica's C library sorts otherwise.
    collation = [SQL('COLLATE "C"')] if engine and engine.has_collations else []

    class User(db.Model):
        username = CharField(max_length=64, primary_key=True, constraints=collation)
        date_of_birth = DateField()
        version = BigIntegerField()
        created_at = TimestampField()
        updated_at = TimestampField()

        class Meta:
            table_name = "users"

    # Where each statement commits on its own, a script that was interrupted begins again.
    db.create_tables([User], safe=not migrator.transactional_ddl)
    if engine and engine.has_fillfactor:
        # Room on each page, so that a changed row stays on it and the index is left alone.
        db.execute_sql("ALTER TABLE users SET (fillfactor = 85)")
    if engine and engine.spreads_tables:
        db.execute_sql("SELECT create_distributed_table('users', 'username')")


def down(migrator, db):
    db.execute_sql("DROP TABLE users")
