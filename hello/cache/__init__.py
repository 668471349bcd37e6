"""The server-side cache, in Valkey or Redis, which never shows the past.

`connection` talks to it, `address` reads its URI; `permission` asks the primary whether it may be
used; `lanes` wrap those of the databases.

It imports the databases, batching's protocol of a lane, and what those import: nothing of the
server or HTTP.
"""
