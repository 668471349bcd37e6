"""gunicorn's settings and hooks, for `gunicorn -c python:hello.server 'hello.app:wsgi()'`."""

import sys

# gunicorn reads this package; whoever else imports a part of it wants that part alone.
if "gunicorn.app.base" in sys.modules:
    from hello.server.configuration import *  # noqa: F403
