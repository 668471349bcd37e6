"""Every setting of the service, declared once: its name, its default, and what it may be.

Settings are read once, at the start, from the source in `hello.environment`. The URIs alone are
read again while the service runs: see `hello.credentials`.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import regex

from hello import time_zones
from hello.cache import uri as cache_uri
from hello.database.engine import ENGINES, Engine
from hello.environment import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_SECRETS_DIR,
    SettingsError,
    Source,
    integer,
    is_this_machines_name,
    listen_on,
)
from hello.uris import DatabaseURI, parse_replica_uris
from hello.usernames import DEFAULT_PATTERN

T = TypeVar("T")


def setting(name: str, parse: Callable[[str], T], default: T) -> T:
    """Declare a field of `Settings`.

    `parse` turns the text of the setting `name` into its value, or raises ValueError with a message
    that does not hold the text.
    """
    declared: T = field(default=default, metadata={"name": name, "parse": parse})
    return declared


class Shown(NamedTuple):
    """A setting as people are shown it: without what may hold a password."""

    name: str
    value: str
    #: Where it comes from.
    origin: str


#: The settings that may hold a password, and what they are shown as where nobody has set them.
_SECRETS = {"DB_URI": "sqlite://", "DB_READ_URI": "", "CACHE_URI": ""}


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


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return parse


def _engine(text: str) -> Engine | None:
    names = _one_of("auto", *ENGINES)
    return ENGINES.get(names(text))


def _number_of_replicas(text: str) -> int:
    return len(parse_replica_uris(text))


def _is_cache_uri(text: str) -> bool:
    return bool(cache_uri.parse(text))


#: OpenTelemetry's variables that name a collector for traces.
_COLLECTORS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def _collector(environ: Mapping[str, str]) -> str | None:
    return next((name for name in _COLLECTORS if environ.get(name)), None)


def _traces(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces; raises SettingsError."""
    name = _collector(environ)
    if name is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return False
    with suppress(ModuleNotFoundError):  # a parent package is missing
        if find_spec("opentelemetry.exporter.otlp.proto.http"):
            return True
    raise SettingsError(f"{name}: traces need the extra: pip install 'hello[otel]'")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of the service, checked. Times are in seconds."""

    source: Source
    db_uri: DatabaseURI = setting("DB_URI", DatabaseURI.parse, DatabaseURI("sqlite://"))  # noqa: RUF009
    #: None if the engine is asked what it is.
    db_engine: Engine | None = setting("DB_ENGINE", _engine, None)  # noqa: RUF009
    #: The number of replicas, and whether there is a cache; `hello.credentials` has their URIs.
    replicas: int = setting("DB_READ_URI", _number_of_replicas, 0)
    cache: bool = setting("CACHE_URI", _is_cache_uri, False)
    cache_ttl: float = setting("CACHE_TTL", _seconds, 60.0)
    cache_timeout: float = setting("CACHE_TIMEOUT", _seconds, 0.25)
    host: str = setting("HOST", listen_on, DEFAULT_HOST)
    port: int = setting("PORT", integer(0, 65535), DEFAULT_PORT)
    admin_port: int = setting("ADMIN_PORT", integer(0, 65535), 9090)
    web_concurrency: int = setting("WEB_CONCURRENCY", integer(1, 256), 1)
    max_connections: int = setting("MAX_CONNECTIONS", integer(1, 1_000_000), 4096)
    #: Whether plain requests take the short way of hello/server/connection.py.
    http_short_way: bool = setting("HTTP_SHORT_WAY", _boolean, True)
    time_zone: ZoneInfo = setting("TIMEZONE", time_zones.parse, time_zones.parse("UTC"))  # noqa: RUF009
    username_pattern: str = setting("USERNAME_PATTERN", _pattern, DEFAULT_PATTERN)
    read_lanes: int = setting("READ_LANES", integer(1, 16), 2)
    max_waiting: int = setting("MAX_WAITING", integer(1, 1_000_000), 1024)
    connect_timeout: float = setting("CONNECT_TIMEOUT", _seconds, 2.0)
    statement_timeout: float = setting("STATEMENT_TIMEOUT", _seconds, 2.0)
    request_timeout: float = setting("REQUEST_TIMEOUT", _seconds, 5.0)
    head_timeout: float = setting("HEAD_TIMEOUT", _seconds, 10.0)
    body_timeout: float = setting("BODY_TIMEOUT", _seconds, 10.0)
    graceful_timeout: int = setting("GRACEFUL_TIMEOUT", integer(1, 3600), 20)
    log_level: str = setting(
        "LOG_LEVEL", _one_of("debug", "info", "warning", "error", "critical"), "info"
    )
    log_format: str = setting("LOG_FORMAT", _one_of("auto", "json", "text"), "auto")
    access_log: bool = setting("ACCESS_LOG", _boolean, False)
    #: Whether traces are sent; OpenTelemetry reads its other settings itself.
    traces: bool = False

    #: The settings that this process, or the master that it was forked from, began with.
    _at_start: ClassVar["Settings | None"] = None

    @classmethod
    def of_the_start(cls) -> "Settings":
        """The settings that the master began with; those of `load` in a process without a master.

        A mounted file may since have become wrong, been removed, or come to name another database.
        A worker that read it anew would end the master, or serve other data than its siblings.
        Connecting reads the URIs again, and raises what is wrong with them.
        """
        return cls._at_start or cls.load()

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read and check every setting; raises SettingsError for the first that is wrong."""
        source = Source(environ)
        if environ.get("SECRETS_DIR") and not Path(environ["SECRETS_DIR"]).is_dir():
            raise SettingsError("SECRETS_DIR: is no directory")
        values: dict[str, Any] = {
            declared.name: value
            for declared in fields(cls)
            if declared.metadata and (value := source.parse(**declared.metadata)) is not None
        }
        settings = cls(source=source, **values, traces=_traces(environ))
        if settings.db_uri.is_sqlite and not Path(settings.db_uri.sqlite_path).parent.is_dir():
            raise SettingsError("DB_URI: the directory of the SQLite file does not exist")
        if settings.db_uri.is_memory and settings.web_concurrency > 1:
            raise SettingsError(
                "WEB_CONCURRENCY: must be 1 with a database in memory: no two workers share one"
            )
        if 0 < settings.admin_port == settings.port and source.get("ADMIN_PORT"):
            raise SettingsError("ADMIN_PORT: must differ from PORT")
        cache = source.find("CACHE_URI")
        if cache and cache.name != "CACHE_URI" and settings.db_uri.is_sqlite:
            # A platform sets it for whoever wants it, and SQLite wants none.
            settings = replace(settings, cache=False)
        goes_with_postgresql = {
            "DB_ENGINE": settings.db_engine,
            "DB_READ_URI": settings.replicas,
            "CACHE_URI": settings.cache,
        }
        for name, given in goes_with_postgresql.items():
            if given and settings.db_uri.is_sqlite:
                raise SettingsError(f"{name}: goes with a DB_URI that begins with postgresql://")
        if environ is os.environ:
            cls._at_start = cls._at_start or settings
        return settings

    @classmethod
    def names(cls) -> list[str]:
        """The names of all settings but OpenTelemetry's."""
        return [each.metadata["name"] for each in fields(cls) if each.metadata]

    @classmethod
    def check(cls, name: str, environ: Mapping[str, str]) -> None:
        """Check one setting alone; raises SettingsError if it is wrong."""
        [declared] = [each for each in fields(cls) if each.metadata.get("name") == name]
        Source(environ).parse(**declared.metadata)

    def shown(self) -> list[Shown]:
        """Every setting, its value, and where that comes from."""
        directory = self.source.directory
        origin = "default" if str(directory) == DEFAULT_SECRETS_DIR else "variable SECRETS_DIR"
        rows = [Shown("SECRETS_DIR", str(directory), origin)]
        for declared in fields(self):
            if declared.metadata:
                name = declared.metadata["name"]
                rows.append(self._show(name, getattr(self, declared.name)))
        collector = _collector(self.source.environ) if self.traces else None
        origin = f"variable {collector}" if collector else "default"
        return [*rows, Shown(_COLLECTORS[-1], "secret" if collector else "", origin)]

    def _show(self, name: str, value: object) -> Shown:
        origin = self.source.origin(name)
        if name == "HOST" and is_this_machines_name(self.source.get(name) or ""):
            origin = f"default, since {origin} is this machine's name"
        if name == "CACHE_URI" and origin != "default" and not value:
            return Shown(name, "", f"{origin}, not used with SQLite")
        if name in _SECRETS:
            return Shown(name, _SECRETS[name] if origin == "default" else "secret", origin)
        if name == "DB_ENGINE":
            return Shown(name, str(value or "auto"), origin)
        if isinstance(value, bool):
            return Shown(name, "on" if value else "off", origin)
        return Shown(name, f"{value:g}" if isinstance(value, float) else str(value), origin)

    @property
    def backends(self) -> str:
        """The databases and the cache that are named, in words without a secret."""
        if self.db_uri.is_sqlite:
            return "SQLite in memory" if self.db_uri.is_memory else "a SQLite file"
        replicas = f"{self.replicas} replica" + ("" if self.replicas == 1 else "s")
        parts = [replicas] if self.replicas else []
        return ", ".join(["PostgreSQL", *parts, *(["a cache"] if self.cache else [])])
