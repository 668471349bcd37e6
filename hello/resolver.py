"""The addresses of a host, found within a time and without stopping other greenlets.

The C library looks a name up in a thread, and nothing can interrupt it: where the name server
is silent it takes ten seconds and more. Callers stop waiting before that; the thread goes on.
Threads are few, and shared by all look-ups, so each host occupies one at most: callers who ask for
the same host wait for the same look-up, and one host does not keep another's callers waiting.
"""

from contextlib import suppress
from ipaddress import ip_address

import gevent
from gevent.hub import Hub
from gevent.socket import AF_UNSPEC, SOCK_STREAM, gaierror, getaddrinfo

#: Seconds for which an answer is kept that came too late for all callers: else a name server that
#: takes longer than they wait would never be of use.
KEPT = 5.0

#: The look-ups under way, by event loop and host: each thread that waits has a loop of its own.
_under_way: dict[tuple[Hub, str], gevent.Greenlet] = {}


def addresses(host: str, timeout: float) -> list[str]:
    """The addresses of a host; an empty list if none was found within `timeout` seconds."""
    with suppress(ValueError):
        ip_address(host)
        return [host]
    key = (gevent.get_hub(), host)
    lookup = _under_way.get(key)
    if lookup is None:
        lookup = _under_way[key] = gevent.spawn(_look_up, host)
        lookup.link(lambda _: gevent.spawn_later(KEPT, _forget, key, lookup))
    lookup.join(max(0.0, timeout))
    if lookup.ready():
        _forget(key, lookup)
    return list(lookup.value or ())


def _forget(key: tuple[Hub, str], lookup: gevent.Greenlet) -> None:
    if _under_way.get(key) is lookup:
        del _under_way[key]


def _look_up(host: str) -> list[str]:
    try:
        host.encode("idna")  # gevent would print a traceback
        found = getaddrinfo(host, None, AF_UNSPEC, SOCK_STREAM)
    except (gaierror, UnicodeError):
        return []
    return list(dict.fromkeys(str(address[4][0]) for address in found))
