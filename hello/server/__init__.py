"""What stands between gunicorn and the application: a worker, its connections, and its end.

`gunicorn -c python:hello.server 'hello.app:wsgi()'` starts the service: this package is
gunicorn's configuration too, and `hello.server.configuration` has the settings and hooks.

gunicorn's master imports all of this package but `refusals`, and never serves a request. What it
imports stays as it was when it started, whatever becomes of the files; and a fork shares what the
master has opened. So this package imports the telemetry, `hello.lifecycle` and `hello.settings`
(with what a setting is checked by), and no more: never `app`, `resources`, `batching` or `users`,
of `cache` only what CACHE_URI means, and of `database` only what DB_ENGINE does. A worker imports
the application after the fork, and so whatever needs Falcon: `refusals`, and what answers on the
admin port.
tests/system/server/test_border.py looks at what a master has imported.
"""

import sys

# To import the configuration patches the standard library, reads the environment, and ends the
# process if a setting is wrong. That is for gunicorn alone, which asks for this package itself.
# Tests, and who else wants a module of it, must get that module and nothing else.
if "gunicorn.app.base" in sys.modules:
    from hello.server.configuration import *  # noqa: F403
