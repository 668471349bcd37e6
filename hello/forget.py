"""`python -m hello forget USERNAME`: erase a person, for whoever runs the service.

Erasing is a write like a PUT: it is committed in the primary, and the user removed from the cache,
before the command says so. There is no HTTP method for it, since the service knows no callers. No
output holds the username.
"""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import closing

from hello.backends import Backends
from hello.checks import check_write
from hello.environment import SettingsError
from hello.errors import Rejected, Unavailable
from hello.settings import Settings
from hello.usernames import UsernameError, Usernames


def forget(argument: str) -> bool:
    """Erase a user; return whether there was one. `argument` is as the command line has it.

    Raises SettingsError if a setting or the username is wrong, and Unavailable if the user is
    not erased for certain: the message says what is known.
    """
    # Failures are in the messages: the log would say them twice.
    logging.getLogger("hello").addHandler(logging.NullHandler())
    settings = Settings.load()
    if settings.db_uri.is_memory:
        raise SettingsError("DB_URI: what is in the memory of a service ends with it")
    try:
        # The bytes are read as UTF-8, as those of a path, whatever the terminal's encoding is.
        raw = os.fsencode(argument).decode("utf-8", "replace")
        name = Usernames(settings.username_pattern).parse(raw)
        if settings.db_uri.lacks_its_file:
            raise Unavailable("nothing was erased: the SQLite file is not there")
        return _erase(name, Backends(settings), settings.request_timeout)
    except UsernameError as ex:
        raise SettingsError(f"USERNAME: {ex}") from None
    except Rejected:
        raise SettingsError("USERNAME: the database can store no such name") from None


def _erase(name: str, backends: Backends, timeout: float) -> bool:
    """Erase a user as a PUT writes: in the database, then in the cache.

    Returns whether there was one; every GET that begins after that is 404. `timeout`, in seconds,
    is for each of the two steps. Raises Unavailable or Rejected.
    """
    deleted = False

    def delete(names: dict[str, None], deadline: float, /) -> Mapping[str, bool | Exception]:
        nonlocal deleted
        results = session.forget(names, deadline)
        deleted = True
        return results

    with closing(backends.open_primary()) as session:
        deadline = time.monotonic() + timeout
        try:
            # Asked beforehand: a DELETE whose answer is lost is repeated, and finds nothing then.
            known = session.call(lambda c: c.find([name], deadline), deadline)
            uses_cache = backends.cache is not None
            check_write(session, lambda c: c.forget([], deadline), uses_cache, deadline)
        except Unavailable as ex:
            raise Unavailable(f"nothing was erased: {ex}") from ex
        try:
            erased = backends.writes(delete)({name: None}, time.monotonic() + timeout)
        except Unavailable as ex:
            state = (
                "it is erased from the database, and may still be shown from the cache"
                if deleted
                else "it is not known whether it is erased"
            )
            raise Unavailable(f"{state}, so run this again: {ex}") from ex
    return known[name].date_of_birth is not None or name in erased
