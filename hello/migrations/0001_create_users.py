"""Create the table of users."""

from peewee import (
    SQL,
    BigIntegerField,
    CharField,
    DateField,
    DateTimeField,
    PostgresqlDatabase,
)


class TimestampField(DateTimeField):
    field_type = "TIMESTAMPTZ"


def up(migrator, db):
    postgresql = isinstance(db, PostgresqlDatabase)
    # Usernames are compared byte by byte. A collation of the operating system would be
    # slower, and an index sorted by one breaks when a replica's C library sorts otherwise.
    collation = [SQL('COLLATE "C"')] if postgresql else []

    class User(db.Model):
        username = CharField(max_length=64, primary_key=True, constraints=collation)
        date_of_birth = DateField()
        version = BigIntegerField()
        created_at = TimestampField()
        updated_at = TimestampField()

        class Meta:
            table_name = "users"

    db.create_tables([User], safe=False)
    if postgresql:
        # Room on each page, so that a changed row stays on it and the index is left alone.
        db.execute_sql("ALTER TABLE users SET (fillfactor = 85)")


def down(migrator, db):
    db.execute_sql("DROP TABLE users")
