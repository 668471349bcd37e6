"""Every setting of the service, declared once: its name, its default, and what it may be.

Settings are read once, at the start: `hello.declaration` says how. The URIs alone are read again
while the service runs: see `hello.credentials`.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar
from zoneinfo import ZoneInfo

import regex

from hello import time_zones
from hello.cache import uri as cache_uri
from hello.database.engine import ENGINES, Engine
from hello.declaration import DeclaredSettings, Shown, boolean, one_of, seconds, setting
from hello.environment import DEFAULT_HOST, DEFAULT_PORT, SettingsError, integer, listen_on
from hello.uris import DatabaseURI, parse_replica_uris
from hello.usernames import DEFAULT_PATTERN


def _pattern(text: str) -> str:
    try:
        regex.compile(text)
    except (regex.error, ValueError, RecursionError):
        raise ValueError("must be a regular expression") from None
    return text


def _engine(text: str) -> Engine | None:
    names = one_of("auto", *ENGINES)
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
class Settings(DeclaredSettings):
    """Every setting of the service, checked. Times are in seconds."""

    db_uri: DatabaseURI = setting(  # noqa: RUF009
        "DB_URI", DatabaseURI.parse, DatabaseURI("sqlite://"), secret="sqlite://"
    )
    #: None if the engine is asked what it is.
    db_engine: Engine | None = setting("DB_ENGINE", _engine, None)  # noqa: RUF009
    #: The number of replicas, and whether there is a cache; `hello.credentials` has their URIs.
    replicas: int = setting("DB_READ_URI", _number_of_replicas, 0, secret="")
    cache: bool = setting("CACHE_URI", _is_cache_uri, False, secret="")
    cache_ttl: float = setting("CACHE_TTL", seconds, 60.0)
    cache_timeout: float = setting("CACHE_TIMEOUT", seconds, 0.25)
    host: str = setting("HOST", listen_on, DEFAULT_HOST)
    port: int = setting("PORT", integer(0, 65535), DEFAULT_PORT)
    admin_port: int = setting("ADMIN_PORT", integer(0, 65535), 9090)
    web_concurrency: int = setting("WEB_CONCURRENCY", integer(1, 256), 1)
    max_connections: int = setting("MAX_CONNECTIONS", integer(1, 1_000_000), 4096)
    #: Whether plain requests take the short way of hello/server/connection.py.
    http_short_way: bool = setting("HTTP_SHORT_WAY", boolean, True)
    time_zone: ZoneInfo = setting("TIMEZONE", time_zones.parse, time_zones.parse("UTC"))  # noqa: RUF009
    username_pattern: str = setting("USERNAME_PATTERN", _pattern, DEFAULT_PATTERN)
    read_lanes: int = setting("READ_LANES", integer(1, 16), 2)
    max_waiting: int = setting("MAX_WAITING", integer(1, 1_000_000), 1024)
    connect_timeout: float = setting("CONNECT_TIMEOUT", seconds, 2.0)
    statement_timeout: float = setting("STATEMENT_TIMEOUT", seconds, 2.0)
    request_timeout: float = setting("REQUEST_TIMEOUT", seconds, 5.0)
    head_timeout: float = setting("HEAD_TIMEOUT", seconds, 10.0)
    body_timeout: float = setting("BODY_TIMEOUT", seconds, 10.0)
    graceful_timeout: int = setting("GRACEFUL_TIMEOUT", integer(1, 3600), 20)
    log_level: str = setting(
        "LOG_LEVEL", one_of("debug", "info", "warning", "error", "critical"), "info"
    )
    log_format: str = setting("LOG_FORMAT", one_of("auto", "json", "text"), "auto")
    access_log: bool = setting("ACCESS_LOG", boolean, False)
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
        settings = replace(cls.read(environ), traces=_traces(environ))
        source = settings.source
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

    def shown(self) -> list[Shown]:
        collector = _collector(self.source.environ) if self.traces else None
        origin = f"variable {collector}" if collector else "default"
        traces = Shown(_COLLECTORS[-1], "secret" if collector else "", origin)
        return [*super().shown(), traces]

    def _show(self, name: str, value: object, secret: str | None) -> Shown:
        shown = super()._show(name, value, secret)
        if name == "CACHE_URI" and shown.origin != "default" and not value:
            return Shown(name, "", f"{shown.origin}, not used with SQLite")
        if name == "DB_ENGINE":
            return shown._replace(value=str(value or "auto"))
        return shown

    @property
    def backends(self) -> str:
        """The databases and the cache that are named, in words without a secret."""
        if self.db_uri.is_sqlite:
            return "SQLite in memory" if self.db_uri.is_memory else "a SQLite file"
        replicas = f"{self.replicas} replica" + ("" if self.replicas == 1 else "s")
        parts = [replicas] if self.replicas else []
        return ", ".join(["PostgreSQL", *parts, *(["a cache"] if self.cache else [])])
