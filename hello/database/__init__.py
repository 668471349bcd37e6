"""The databases: PostgreSQL, its replicas, and SQLite.

`session` is what lanes use; `postgresql` and `sqlite` are its drivers, `guard` spares a database
that is away, `replica` reads one without ever reading the past. `schema` runs the scripts of
hello/migrations; `models` has the tables and the records, `statements` all SQL that finds and
changes users.

It imports errors, usernames, breaker, uris, resolver and telemetry: nothing of the cache, the
server or HTTP.
"""
