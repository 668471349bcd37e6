"""Where the databases and the cache are, and the passwords: a rotated one takes effect here.

The URIs are read again at every connect, since a mounted Secret changes while the service runs.
Connections that are open go on with the old password until they are closed.
"""

from collections.abc import Callable
from typing import TypeVar

from hello.cache import uri as cache_uri
from hello.environment import SettingsError, Source
from hello.errors import Misconfigured
from hello.uris import DatabaseURI, parse_replica_uris

T = TypeVar("T")


class Credentials:
    """The URIs of the databases and of the cache, as the settings are when they are asked for.

    Every method raises Misconfigured if its setting has become wrong, or was removed.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def primary(self) -> str:
        uri = self._read("DB_URI", DatabaseURI.parse)
        if uri is None or uri.is_sqlite:
            raise Misconfigured("DB_URI: changed to SQLite, which needs a restart")
        return uri.text

    def replica(self, number: int) -> str:
        """The URI of a replica, from 0; of another one if there are fewer replicas by now."""
        uris = self._read("DB_READ_URI", parse_replica_uris)
        if uris is None:
            raise Misconfigured("DB_READ_URI: was removed, which needs a restart")
        return uris[number % len(uris)]

    def cache(self) -> str:
        uri = self._read("CACHE_URI", cache_uri.parse)
        if uri is None:
            raise Misconfigured("CACHE_URI: was removed, which needs a restart")
        return uri

    def _read(self, name: str, parse: Callable[[str], T]) -> T | None:
        try:
            return self._source.parse(name, parse)
        except SettingsError as ex:
            raise Misconfigured(str(ex)) from None
