"""Create the one row that says whether the cache may be used."""

from peewee import BigIntegerField, DateTimeField, SmallIntegerField


class TimestampField(DateTimeField):
    field_type = "TIMESTAMPTZ"


def up(migrator, db):
    class CacheUse(db.Model):
        id = SmallIntegerField(primary_key=True)
        generation = BigIntegerField()
        suspended_until = TimestampField()

        class Meta:
            table_name = "cache_use"

    # Where each statement commits on its own, a script that was interrupted begins again.
    db.create_tables([CacheUse], safe=not migrator.transactional_ddl)
    db.execute_sql("INSERT INTO cache_use VALUES (1, 1, CURRENT_TIMESTAMP) ON CONFLICT DO NOTHING")


def down(migrator, db):
    db.execute_sql("DROP TABLE cache_use")
