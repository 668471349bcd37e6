"""`python -m hello forget USERNAME`: erase a person, for whoever runs the service.

It is a write like a PUT: committed in the primary, and removed from the cache, before it says so;
see `hello.backends`. There is no HTTP method for it, since the service knows no callers. Nothing
that is said holds the username.
"""

import logging
import os

from hello.backends import Backends
from hello.environment import SettingsError
from hello.errors import Rejected, Unavailable
from hello.settings import Settings
from hello.usernames import InvalidUsername, Usernames


def forget(argument: str) -> bool:
    """Erase a user; whether there was one. `argument` is as the command line has it.

    Raises SettingsError if a setting or the username is wrong, and Unavailable if the user is
    not erased for certain: the message says what is known.
    """
    # Every failure is in the message: the log would say it twice.
    logging.getLogger("hello").addHandler(logging.NullHandler())
    settings = Settings.load()
    if settings.db_uri.is_memory:
        raise SettingsError("DB_URI: what is in the memory of a service ends with it")
    try:
        # UTF-8 whatever the terminal's encoding is, as in a path.
        raw = os.fsencode(argument).decode("utf-8", "replace")
        username = Usernames(settings.username_pattern).parse(raw)
        if settings.db_uri.lacks_its_file:
            raise Unavailable("nothing was erased: the SQLite file is not there")
        return Backends(settings).forget(username)
    except InvalidUsername as ex:
        raise SettingsError(f"USERNAME: {ex}") from None
    except Rejected:
        raise SettingsError("USERNAME: the database can store no such name") from None
