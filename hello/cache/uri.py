"""What CACHE_URI may be, and redis-py's client for it, whose every wait has an end."""

import socket
import time
from typing import Any

import redis
import regex
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, SSLConnection, parse_url
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from hello import resolver

#: The options that a URI may have after a `?`. Others that redis-py knows would override what is
#: set here, as `socket_timeout` would CACHE_TIMEOUT.
OPTIONS = frozenset(
    {
        *("db", "username", "password", "client_name"),
        *("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"),
        *("ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version"),
    }
)

#: The members of parse_url's result that are no options.
_PLACE = frozenset({"host", "port", "path", "connection_class"})


class _Connection(redis.Connection):
    """A connection whose timeout bounds looking up its host and trying all addresses together."""

    def _connect(self) -> socket.socket:
        timeout = self.socket_connect_timeout or 0.0
        end = time.monotonic() + timeout
        error = OSError(0, "its host could not be resolved in time")
        for address in resolver.addresses(self.host, timeout):
            remaining = end - time.monotonic()
            if remaining <= 0:
                break
            try:
                return self._connect_to(address, remaining)
            except OSError as ex:
                error = ex
        raise error

    def _connect_to(self, address: str, timeout: float) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in self.socket_keepalive_options.items():
                connected.setsockopt(socket.IPPROTO_TCP, option, value)
            connected.settimeout(timeout)
            connected.connect((address, self.port))
            connected.settimeout(self.socket_timeout)
        except BaseException:
            connected.close()
            raise
        return connected


class _TLSConnection(SSLConnection, _Connection):
    """A connection with TLS, which verifies the name of the host and not the address."""


def parse(text: str) -> str:
    """A URI for `connect`; raises ValueError, with a message that does not hold the text."""
    text = regex.sub("^valkey(?=s?://)", "redis", text.strip())
    try:
        _pool(text, 1.0).make_connection()
    except (ValueError, TypeError, redis.RedisError):
        known = ", ".join(sorted(OPTIONS))
        raise ValueError(
            "must be a URI like redis://:password@host:6379/0,"
            f" with no options but {known}, of which those of TLS go with rediss:// alone"
        ) from None
    return text


def connect(uri: str, timeout: float) -> Any:
    """A client with one connection, which is open.

    `timeout`, in seconds, bounds opening the socket, and then each read and each send. Raises
    what redis-py raises, and ValueError or TypeError for what `parse` refuses.
    """
    client = redis.Redis(connection_pool=_pool(uri, timeout), single_connection_client=True)
    client.auto_close_connection_pool = True
    return client


def _pool(uri: str, timeout: float) -> ConnectionPool:
    options = parse_url(uri)
    if not options.keys() - _PLACE <= OPTIONS:
        raise ValueError("the URI has an unknown option")
    database = regex.search(r"^rediss?://[^/?#]*/([^?#]*)", uri)
    if database and not regex.fullmatch("[0-9]*", database[1]):
        raise ValueError("the database is no number")
    given = options.get("connection_class", redis.Connection)
    return ConnectionPool(
        **options
        | {
            "connection_class": {
                redis.Connection: _Connection,
                SSLConnection: _TLSConnection,
            }.get(given, given),
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "decode_responses": True,
            "encoding_errors": "replace",
            # The breaker decides when to try again.
            "retry": Retry(NoBackoff(), 0),
            # A server could lengthen the timeout by such a notification.
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
    )
