"""What the environment and the mounted files say: read once, at the edge.

Any setting may be a file of its name in the directory `SECRETS_DIR` instead of an
environment variable; the variable wins. Kubernetes mounts a Secret like that.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, TypeVar
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import psycopg2
import regex
from psycopg2.extensions import parse_dsn

from hello import time_zones
from hello.cache import address
from hello.usernames import DEFAULT_PATTERN

DEFAULT_SECRETS_DIR = "/etc/hello/secrets"

#: The exit code of every command if a setting is wrong; argparse's for a wrong option.
MISCONFIGURED = 2

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is wrong. The message names it and never holds its value."""


@dataclass(frozen=True)
class DatabaseURI:
    """The address of a database, as given. It may hold a password."""

    text: str

    @classmethod
    def parse(cls, text: str) -> "DatabaseURI":
        """Raises ValueError, with a message that does not hold the text."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("not UTF-8") from None
        uri = cls(text)
        if text.startswith("sqlite://"):
            rest = text.removeprefix("sqlite://")
            if rest not in ("", "/") and not rest.startswith("/"):
                raise ValueError(
                    "a SQLite file is written sqlite:///name or sqlite:////absolute/name"
                )
        elif text.startswith(("postgresql://", "postgres://")):
            try:
                parameters = parse_dsn(text)
            except psycopg2.Error:
                raise ValueError("not a URI that libpq understands") from None
            # libpq looks at ports when it connects. A `/` in a password that is not written
            # %2F makes a port of it, which would then be quoted in the log.
            ports = parameters.get("port", "").split(",")
            if not all(port == "" or (port.isascii() and port.isdigit()) for port in ports):
                raise ValueError("a port is not a number; is the password percent-encoded?")
        else:
            raise ValueError("must begin with sqlite:// or postgresql://")
        return uri

    @property
    def is_sqlite(self) -> bool:
        return self.text.startswith("sqlite:")

    @property
    def is_memory(self) -> bool:
        return self.is_sqlite and self.sqlite_path == ":memory:"

    @property
    def lacks_its_file(self) -> bool:
        """Whether there is no such SQLite file: whoever opens it makes an empty one."""
        return self.is_sqlite and not self.is_memory and not Path(self.sqlite_path).exists()

    @property
    def sqlite_path(self) -> str:
        """`sqlite:///a.db` is a.db in the working directory, `sqlite:////a.db` is /a.db."""
        return unquote(self.text.removeprefix("sqlite://")[1:]) or ":memory:"

    def __repr__(self) -> str:
        return "DatabaseURI(…)"


def parse_replica_uris(text: str) -> list[str]:
    """One libpq URI for each replica: several URIs, or several hosts in one, by commas.

    Raises ValueError, with a message that does not hold the text.
    """
    uris: list[str] = []
    for part in regex.split(r"[,\s]+(?=postgres(?:ql)?://)", text.strip()):
        if DatabaseURI.parse(part).is_sqlite:
            raise ValueError("must begin with postgresql://")
        scheme, rest = part.split("://", 1)
        authority, slash, path = rest.partition("/")
        user, at, hosts = authority.rpartition("@")
        uris += [f"{scheme}://{user}{at}{host}{slash}{path}" for host in hosts.split(",")]
    return uris


class Source:
    """Where settings are looked up: variables first, then files in a directory."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._directory = Path(environ.get("SECRETS_DIR") or DEFAULT_SECRETS_DIR)

    def get(self, name: str) -> str | None:
        """The text of a setting as it is now, or None; raises SettingsError."""
        if self._environ.get(name):
            return self._environ[name]
        try:
            return (self._directory / name).read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            return None
        except (OSError, UnicodeDecodeError) as ex:
            raise SettingsError(f"{name}: its file cannot be read ({type(ex).__name__})") from None

    def parse(self, name: str, convert: Callable[[str], T], default: str) -> T:
        """The value of a setting; raises SettingsError."""
        text = self.get(name)
        try:
            return convert(default if text is None else text)
        except ValueError as ex:
            raise SettingsError(f"{name}: {ex}") from None

    def database_uri(self) -> DatabaseURI:
        """DB_URI as it is now: a mounted Secret changes while the service runs."""
        return self.parse("DB_URI", DatabaseURI.parse, "sqlite://")

    def replica_uris(self) -> list[str]:
        return self.parse("DB_READ_URI", parse_replica_uris, "") if self.get("DB_READ_URI") else []

    def cache_uri(self) -> str | None:
        return self.parse("CACHE_URI", address.parse, "") if self.get("CACHE_URI") else None

    def web_concurrency(self) -> int:
        return self.parse("WEB_CONCURRENCY", _integer(1, 256), "1")


def _integer(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return convert


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 3600:
        raise ValueError("must be a number of seconds, at least a millisecond and at most an hour")
    return value


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be on or off")


def _pattern(text: str) -> str:
    try:
        regex.compile(text)
    except (regex.error, ValueError, RecursionError):
        raise ValueError("must be a regular expression") from None
    return text


def _log_level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error", "critical"):
        raise ValueError("must be debug, info, warning, error or critical")
    return text.lower()


def _log_format(text: str) -> str:
    if text.lower() not in ("auto", "json", "text"):
        raise ValueError("must be auto, json or text")
    return text.lower()


#: OpenTelemetry's variables that name a collector for traces.
_COLLECTORS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def _traces(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces; raises SettingsError."""
    name = next((name for name in _COLLECTORS if environ.get(name)), None)
    if name is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return False
    with suppress(ModuleNotFoundError):  # one of its parents
        if find_spec("opentelemetry.exporter.otlp.proto.http"):
            return True
    raise SettingsError(f"{name}: traces need the extra: pip install 'hello[otel]'")


@dataclass(frozen=True)
class Settings:
    """Every setting of the service, checked. Times are in seconds."""

    source: Source
    db_uri: DatabaseURI
    replicas: int
    cache: bool
    cache_ttl: float
    cache_timeout: float
    host: str
    port: int
    admin_port: int
    web_concurrency: int
    max_connections: int
    time_zone: ZoneInfo
    username_pattern: str
    read_lanes: int
    max_waiting: int
    connect_timeout: float
    statement_timeout: float
    request_timeout: float
    head_timeout: float
    body_timeout: float
    graceful_timeout: int
    log_level: str
    log_format: str
    access_log: bool
    traces: bool

    #: What this process, or the one that it was forked from, began with.
    _at_start: ClassVar["Settings | None"] = None

    @classmethod
    def of_the_start(cls) -> "Settings":
        """What the process began with that a worker was forked from; else as `load`.

        A mounted file may have become wrong since, or name another kind of database, or have
        been removed. A worker that read it anew would end the master, or serve something else
        than the others; who connects reads it again, and says what is wrong.
        """
        return cls._at_start or cls.load()

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Raises SettingsError for the first setting that is wrong."""
        source = Source(environ)
        if environ.get("SECRETS_DIR") and not Path(environ["SECRETS_DIR"]).is_dir():
            raise SettingsError("SECRETS_DIR: is no directory")
        settings = cls(
            source=source,
            db_uri=source.database_uri(),
            replicas=len(source.replica_uris()),
            cache=source.cache_uri() is not None,
            cache_ttl=source.parse("CACHE_TTL", _seconds, "60"),
            cache_timeout=source.parse("CACHE_TIMEOUT", _seconds, "0.25"),
            host=source.parse("HOST", str, "127.0.0.1"),
            port=source.parse("PORT", _integer(0, 65535), "8080"),
            admin_port=source.parse("ADMIN_PORT", _integer(0, 65535), "9090"),
            web_concurrency=source.web_concurrency(),
            max_connections=source.parse("MAX_CONNECTIONS", _integer(1, 1_000_000), "4096"),
            time_zone=source.parse("TIMEZONE", time_zones.parse, "UTC"),
            username_pattern=source.parse("USERNAME_PATTERN", _pattern, DEFAULT_PATTERN),
            read_lanes=source.parse("READ_LANES", _integer(1, 16), "2"),
            max_waiting=source.parse("MAX_WAITING", _integer(1, 1_000_000), "1024"),
            connect_timeout=source.parse("CONNECT_TIMEOUT", _seconds, "2"),
            statement_timeout=source.parse("STATEMENT_TIMEOUT", _seconds, "2"),
            request_timeout=source.parse("REQUEST_TIMEOUT", _seconds, "5"),
            head_timeout=source.parse("HEAD_TIMEOUT", _seconds, "10"),
            body_timeout=source.parse("BODY_TIMEOUT", _seconds, "10"),
            graceful_timeout=source.parse("GRACEFUL_TIMEOUT", _integer(1, 3600), "20"),
            log_level=source.parse("LOG_LEVEL", _log_level, "info"),
            log_format=source.parse("LOG_FORMAT", _log_format, "auto"),
            access_log=source.parse("ACCESS_LOG", _boolean, "off"),
            traces=_traces(environ),
        )
        if settings.db_uri.is_sqlite and not Path(settings.db_uri.sqlite_path).parent.is_dir():
            raise SettingsError("DB_URI: the directory of the SQLite file does not exist")
        if settings.db_uri.is_memory and settings.web_concurrency > 1:
            raise SettingsError(
                "WEB_CONCURRENCY: must be 1 with a database in memory: no two workers share one"
            )
        if 0 < settings.admin_port == settings.port and source.get("ADMIN_PORT"):
            raise SettingsError("ADMIN_PORT: must differ from PORT")
        for name, given in (("DB_READ_URI", settings.replicas), ("CACHE_URI", settings.cache)):
            if given and settings.db_uri.is_sqlite:
                raise SettingsError(f"{name}: goes with a DB_URI that begins with postgresql://")
        if environ is os.environ:
            cls._at_start = cls._at_start or settings
        return settings

    @property
    def backends(self) -> str:
        """The databases and the cache that are named, in words without a secret."""
        if self.db_uri.is_sqlite:
            return "SQLite in memory" if self.db_uri.is_memory else "a SQLite file"
        replicas = f"{self.replicas} replica" + ("" if self.replicas == 1 else "s")
        parts = [replicas] if self.replicas else []
        return ", ".join(["PostgreSQL", *parts, *(["a cache"] if self.cache else [])])
