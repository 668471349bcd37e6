"""The databases: PostgreSQL, its replicas, and SQLite.

Lanes use a `session`; `postgresql` and `sqlite` are its drivers, `guard` spares a database that is
away, `replica` reads from replicas without ever reading the past. `schema` runs the scripts of
hello/migrations; `models` has the tables and the records, `statements` all SQL that finds and
changes users.

This package imports errors, usernames, breaker, uris, resolver and telemetry: nothing of the
cache, the server or HTTP.
"""
