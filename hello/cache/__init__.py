"""The server-side cache, in Valkey or Redis, which never shows the past.

`keys` says what a key names and holds, `connection` talks to the server, `uri` says what its URI
may be; `permission` asks the primary whether it may be used; `lanes` wrap those of the databases.

This package imports hello.database, batching's protocol of a lane, and what those import: nothing
of the server or HTTP.
"""
