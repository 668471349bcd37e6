import dataclasses
import itertools
import re
import traceback
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hello.database.engine import CITUS
from hello.environment import DEFAULT_SECRETS_DIR, SettingsError
from hello.settings import Settings
from hello.uris import DatabaseURI
from hello.usernames import DEFAULT_PATTERN

ROOT = Path(__file__).parents[2]

FIELDS = [field for field in dataclasses.fields(Settings) if field.name != "source"]

DEFAULTS = {
    "db_uri": DatabaseURI("sqlite://"),
    "db_engine": None,
    "host": "127.0.0.1",
    "port": 8080,
    "admin_port": 9090,
    "replicas": 0,
    "cache": False,
    "cache_ttl": 60.0,
    "cache_timeout": 0.25,
    "web_concurrency": 1,
    "max_connections": 4096,
    "http_short_way": True,
    "time_zone": ZoneInfo("UTC"),
    "username_pattern": DEFAULT_PATTERN,
    "read_lanes": 2,
    "max_waiting": 1024,
    "connect_timeout": 2.0,
    "statement_timeout": 2.0,
    "request_timeout": 5.0,
    "head_timeout": 10.0,
    "body_timeout": 10.0,
    "graceful_timeout": 20,
    "log_level": "info",
    "log_format": "auto",
    "access_log": False,
    "traces": False,
}

#: Setting, text, field, value.
ACCEPTED = [
    ("DB_URI", "sqlite:///a.db", "db_uri", DatabaseURI("sqlite:///a.db")),
    ("DB_URI", "postgresql://u@h/d", "db_uri", DatabaseURI("postgresql://u@h/d")),
    ("CACHE_TTL", "5", "cache_ttl", 5.0),
    ("CACHE_TIMEOUT", "0.1", "cache_timeout", 0.1),
    ("HOST", "::", "host", "::"),
    ("PORT", "0", "port", 0),
    ("PORT", "65535", "port", 65535),
    ("ADMIN_PORT", "0", "admin_port", 0),
    ("ADMIN_PORT", "9191", "admin_port", 9191),
    ("WEB_CONCURRENCY", "1", "web_concurrency", 1),
    ("MAX_CONNECTIONS", "1000", "max_connections", 1000),
    ("HTTP_SHORT_WAY", "off", "http_short_way", False),
    ("TIMEZONE", "Europe/Berlin", "time_zone", ZoneInfo("Europe/Berlin")),
    ("USERNAME_PATTERN", "[A-Za-z]+", "username_pattern", "[A-Za-z]+"),
    ("READ_LANES", "16", "read_lanes", 16),
    ("MAX_WAITING", "1", "max_waiting", 1),
    ("CONNECT_TIMEOUT", "0.5", "connect_timeout", 0.5),
    ("STATEMENT_TIMEOUT", "3", "statement_timeout", 3.0),
    ("REQUEST_TIMEOUT", "4", "request_timeout", 4.0),
    ("HEAD_TIMEOUT", "5", "head_timeout", 5.0),
    ("BODY_TIMEOUT", "3600", "body_timeout", 3600.0),
    ("GRACEFUL_TIMEOUT", "30", "graceful_timeout", 30),
    ("LOG_LEVEL", "WARNING", "log_level", "warning"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", "traces", True),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318", "traces", True),
    ("LOG_FORMAT", "JSON", "log_format", "json"),
    ("ACCESS_LOG", "on", "access_log", True),
    ("ACCESS_LOG", "True", "access_log", True),
    ("ACCESS_LOG", "off", "access_log", False),
    ("DATABASE_URL", "postgres://u@h/d", "db_uri", DatabaseURI("postgres://u@h/d")),
]

#: The same for settings that go with PostgreSQL alone.
ACCEPTED_WITH_POSTGRESQL = [
    ("DB_ENGINE", "auto", "db_engine", None),
    ("DB_ENGINE", "Citus", "db_engine", CITUS),
    ("DB_READ_URI", "postgresql://u@h/d", "replicas", 1),
    ("DB_READ_URI", "postgresql://u:p%40@h1,h2:5433/d?sslmode=require", "replicas", 2),
    ("DB_READ_URI", "postgresql://h1/d,postgres://h2,h3/d", "replicas", 3),
    ("DB_READ_URI", "postgresql://h1/d postgresql://h2/d", "replicas", 2),
    ("CACHE_URI", "redis://:p%40ss@h:6380/1", "cache", True),
    ("CACHE_URI", "rediss://h", "cache", True),
    ("CACHE_URI", "valkey://h", "cache", True),
    ("CACHE_URI", "valkeys://h", "cache", True),
    ("CACHE_URI", "redis://h?db=3", "cache", True),
    ("CACHE_URI", "redis://h/", "cache", True),
    ("CACHE_URI", "rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=no", "cache", True),
    ("CACHE_URI", "rediss://h?ssl_ca_certs=/etc/ca.pem&ssl_min_version=771", "cache", True),
    ("CACHE_URI", "unix:///run/valkey.sock?db=1", "cache", True),
]

SECONDS = (
    "CACHE_TTL",
    "CACHE_TIMEOUT",
    "CONNECT_TIMEOUT",
    "STATEMENT_TIMEOUT",
    "REQUEST_TIMEOUT",
    "HEAD_TIMEOUT",
    "BODY_TIMEOUT",
)
NUMBERS = (
    *("PORT", "WEB_CONCURRENCY", "MAX_CONNECTIONS", "READ_LANES", "MAX_WAITING"),
    "GRACEFUL_TIMEOUT",
)

REFUSED = [
    *((name, text) for name in SECONDS for text in ("0.0", "-1", "3600.5", "nan", "inf", "soon")),
    *((name, text) for name in NUMBERS for text in ("-1", "1000001", "8.5", "１２", "eighty")),
    *(("WEB_CONCURRENCY", "257"), ("READ_LANES", "17"), ("PORT", "65536")),
    *(("TIMEZONE", "Mars/Olympus"), ("TIMEZONE", "../etc/passwd"), ("TIMEZONE", "America")),
    *(("TIMEZONE", "localtime"), ("TIMEZONE", "Factory"), ("TIMEZONE", "posix/UTC")),
    *(("USERNAME_PATTERN", "[a-z"), ("USERNAME_PATTERN", "(?au)[a-z]")),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("DB_ENGINE", "s3cret"),
    ("ACCESS_LOG", "perhaps"),
    ("HTTP_SHORT_WAY", "perhaps"),
    ("DB_URI", "mysql://u:s3cret@h/d"),
    ("DB_READ_URI", "sqlite:///s3cret.db"),
    ("DB_READ_URI", "postgresql://u:s3/cret@h/d"),
    ("CACHE_URI", "memcached://s3cret@h"),
    ("CACHE_URI", "redis://:s3cret@h:port/0"),
    ("CACHE_URI", "redis://h"),
    ("DB_URI", "s3cret"),
    ("DB_URI", "sqlite:s3cret.db"),
    ("DB_URI", "sqlite://s3cret.db"),
    ("DB_URI", "postgresql://u:s3cret@[::1/d"),
    ("DB_URI", "postgresql://u:s3%zzcret@h/d"),
    ("DB_URI", "postgresql://u:s3cret@h/d?unknown=option"),
    # A password with an unescaped slash: libpq reads `u` as host and `s3` as port.
    ("DB_URI", "postgresql://u:s3/cret@h/d"),
]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    directory.mkdir()
    return directory


def load(**environ: str) -> Settings:
    return Settings.load({"SECRETS_DIR": "/"} | environ)


def test_the_defaults_need_nothing() -> None:
    settings = load()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS


def test_these_tests_know_every_setting() -> None:
    fields = {field.name for field in FIELDS}
    accepted = {field for _, _, field, _ in ACCEPTED + ACCEPTED_WITH_POSTGRESQL}
    assert fields == DEFAULTS.keys() == accepted


def test_every_setting_is_used() -> None:
    files = [file for file in (ROOT / "hello").rglob("*.py") if file.name != "settings.py"]
    code = "".join(file.read_text() for file in files)
    used = set(re.findall(r"settings\.(\w+)", code))
    assert [field.name for field in FIELDS if field.name not in used] == []


def documented_defaults() -> dict[str, str]:
    """Setting and default, as the table has them; one default may stand for several settings."""
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    _, _, table = page.partition("\n| --- |")
    rows = itertools.takewhile(lambda line: line.startswith("|"), table.splitlines()[1:])
    defaults: dict[str, str] = {}
    for row in rows:
        names, texts = (re.findall("`([^`]+)`", cell) for cell in row.split("|")[1:3])
        texts = texts or [""]
        defaults |= dict(zip(names, texts * len(names) if len(texts) == 1 else texts, strict=True))
    return defaults


def test_the_page_has_every_setting_and_its_default() -> None:
    defaults = documented_defaults()
    assert defaults.pop("SECRETS_DIR") == DEFAULT_SECRETS_DIR
    assert {name for name in defaults if name.startswith("OTEL_")}
    defaults = {name: text for name, text in defaults.items() if not name.startswith("OTEL_")}
    declared = {field.metadata["name"]: field for field in FIELDS if field.metadata}
    assert defaults.keys() == declared.keys()
    said = {name: declared[name].metadata["parse"](text) for name, text in defaults.items() if text}
    # An empty cell says that there is none.
    meant = {
        name: field.default for name, field in declared.items() if field.default or name in said
    }
    assert said == meant


@pytest.mark.parametrize(("name", "text", "field", "value"), ACCEPTED_WITH_POSTGRESQL)
def test_settings_that_go_with_postgresql(name: str, text: str, field: str, value: object) -> None:
    settings = load(DB_URI="postgresql://u@h/d", **{name: text})
    assert getattr(settings, field) == value


@pytest.mark.parametrize(("name", "text", "field", "value"), ACCEPTED)
def test_a_variable_sets_its_field_and_no_other(
    name: str, text: str, field: str, value: Any
) -> None:
    settings = load(**{name: text})
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS | {field: value}


@pytest.mark.parametrize(("name", "text"), REFUSED)
def test_a_wrong_value_is_one_line_that_names_the_setting_and_not_the_value(
    name: str, text: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: text})
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert text not in message
    printed = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in printed


@pytest.mark.parametrize(
    "uri",
    [
        "memcached://:s3cret@h",
        "redis://:s3cret@h:port/0",
        "redis://:s3cret@h/one",
        "redis://:s3cret@h?db=one",
        # redis-py would take these, and fail at every connect.
        "redis://:s3cret@h?ssl_cert_reqs=none",
        "rediss://:s3cret@h?ssl_cert_reqs=perhaps",
        "redis://:s3cret@h?encoding=x",
        "redis://:s3cret@h?unknown=option",
        # They would beat CACHE_TIMEOUT.
        "redis://:s3cret@h?socket_timeout=60",
        "redis://:s3cret@h?socket_connect_timeout=60",
        # A question mark in a password that is not written %3F.
        "redis://:s3?cret=1@h",
    ],
)
def test_a_cache_uri_that_would_fail_later_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^CACHE_URI: must be a URI like ") as caught:
        load(DB_URI="postgresql://u@h/d", CACHE_URI=uri)
    assert "\n" not in str(caught.value)
    for piece in ("s3", "one,", "socket_timeout", "encoding"):
        assert piece not in str(caught.value)


def test_a_uri_that_is_not_utf_8_is_refused_without_a_piece_of_it() -> None:
    # How os.environ shows a byte that is not UTF-8.
    with pytest.raises(SettingsError, match=r"^DB_URI: ") as caught:
        load(DB_URI="postgresql://u:p\udcffssword@h/d")
    assert "udcff" not in ascii(str(caught.value))


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1234")
    assert Settings.load().port == 1234


def test_several_workers_cannot_share_a_database_in_memory() -> None:
    with pytest.raises(SettingsError, match=r"^WEB_CONCURRENCY: "):
        load(WEB_CONCURRENCY="2")
    assert load(WEB_CONCURRENCY="2", DB_URI="sqlite:///a.db").web_concurrency == 2


def test_neither_settings_nor_uri_show_a_password() -> None:
    settings = load(DB_URI="postgresql://user:s3cret@db/hello")
    assert "s3cret" not in f"{settings} {settings!r} {settings.db_uri} {settings.db_uri!r}"


def test_a_setting_may_be_a_file(secrets: Path) -> None:
    (secrets / "DB_URI").write_text("postgresql://user:pässword@db/hello\n", "utf-8")
    (secrets / "TIMEZONE").write_text("Asia/Tokyo")
    settings = load(SECRETS_DIR=str(secrets))
    assert settings.db_uri.text == "postgresql://user:pässword@db/hello"
    assert settings.time_zone == ZoneInfo("Asia/Tokyo")


def test_the_environment_wins_over_a_file(secrets: Path) -> None:
    (secrets / "PORT").write_text("1111")
    assert load(SECRETS_DIR=str(secrets), PORT="2222").port == 2222


@pytest.mark.parametrize("variable", ["", None])
def test_an_empty_variable_is_no_variable(secrets: Path, variable: str | None) -> None:
    (secrets / "PORT").write_text("1111")
    environ = {} if variable is None else {"PORT": variable}
    assert load(SECRETS_DIR=str(secrets), **environ).port == 1111


def test_an_empty_file_is_no_file(secrets: Path) -> None:
    (secrets / "PORT").write_text("\n")
    assert load(SECRETS_DIR=str(secrets)).port == 8080


def test_a_directory_for_secrets_that_is_named_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(SettingsError, match=r"^SECRETS_DIR: is no directory$"):
            load(SECRETS_DIR=str(tmp_path / name))


def test_nobody_needs_the_usual_directory_for_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        monkeypatch.setattr("hello.environment.DEFAULT_SECRETS_DIR", str(tmp_path / name))
        assert Settings.load({}).port == 8080


def test_a_sqlite_file_has_a_directory(tmp_path: Path) -> None:
    assert load(DB_URI=f"sqlite:///{tmp_path}/new.db").db_uri.is_sqlite
    with pytest.raises(SettingsError, match=r"^DB_URI: the directory of the SQLite file"):
        load(DB_URI=f"sqlite:///{tmp_path}/missing/new.db")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "SQLite in memory"),
        ({"DB_URI": "sqlite:///a.db"}, "a SQLite file"),
        ({"DB_URI": "postgresql://u:s3cret@h/d"}, "PostgreSQL"),
        (
            {"DB_URI": "postgresql://h/d", "DB_READ_URI": "postgresql://h/d"},
            "PostgreSQL, 1 replica",
        ),
        (
            {
                "DB_URI": "postgresql://h/d",
                "DB_READ_URI": "postgresql://h1,h2/d",
                "CACHE_URI": "redis://:s3cret@h",
            },
            "PostgreSQL, 2 replicas, a cache",
        ),
    ],
)
def test_what_is_named_in_words(environ: dict[str, str], words: str) -> None:
    assert load(**environ).backends == words


def test_a_wrong_value_in_a_file_names_the_setting(secrets: Path) -> None:
    (secrets / "DB_URI").write_text("mysql://user:s3cret@db/hello")
    with pytest.raises(SettingsError, match=r"^DB_URI: ") as caught:
        load(SECRETS_DIR=str(secrets))
    assert "s3cret" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_an_error_and_not_a_default(secrets: Path) -> None:
    (secrets / "DB_URI").mkdir()
    with pytest.raises(SettingsError, match=r"^DB_URI: its file cannot be read"):
        load(SECRETS_DIR=str(secrets))


def test_a_file_that_is_not_utf_8_is_an_error(secrets: Path) -> None:
    (secrets / "DB_URI").write_bytes(b"postgresql://user:\xff@db/hello")
    with pytest.raises(SettingsError, match=r"^DB_URI: its file cannot be read"):
        load(SECRETS_DIR=str(secrets))


def test_the_admin_port_is_not_the_port() -> None:
    with pytest.raises(SettingsError, match=r"^ADMIN_PORT: must differ from PORT"):
        load(PORT="8081", ADMIN_PORT="8081")
    # Who asks for its default as a port has not asked for an admin port.
    assert load(PORT="9090").port == 9090
    assert load(PORT="0", ADMIN_PORT="0").admin_port == 0


def test_the_names_that_platforms_give_are_understood(secrets: Path) -> None:
    postgresql = {"DATABASE_URL": "postgres://u:s3cret@h/d"}
    assert load(**postgresql, REDIS_URL="redis://h").cache
    # The service's own names win, a file too.
    (secrets / "DB_URI").write_text("postgresql://own/d")
    assert load(**postgresql, SECRETS_DIR=str(secrets)).db_uri.text == "postgresql://own/d"
    assert load(**postgresql, DB_URI="sqlite:///a.db").db_uri.is_sqlite
    with pytest.raises(SettingsError, match=r"^DATABASE_URL: must begin with") as caught:
        load(DATABASE_URL="mysql://u:s3cret@h/d")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"^REDIS_URL: must be a URI like"):
        load(**postgresql, REDIS_URL="memcached://h")


def test_a_cache_that_a_platform_names_is_nothing_to_sqlite() -> None:
    assert not load(REDIS_URL="redis://h").cache
    with pytest.raises(SettingsError, match=r"^CACHE_URI: goes with a DB_URI"):
        load(REDIS_URL="redis://h", CACHE_URI="redis://h")


@pytest.mark.parametrize("name", ["desk", "DESK", "desk.example.org"])
def test_a_host_that_is_the_machines_name_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "desk.local")
    settings = load(HOST=name)
    assert settings.host == "127.0.0.1"
    [shown] = [row for row in settings.shown() if row.name == "HOST"]
    assert shown[1:] == ("127.0.0.1", "default, since variable HOST is this machine's name")
    assert load(HOST="desktop").host == "desktop"


def test_what_is_shown_is_every_setting_and_where_it_comes_from(secrets: Path) -> None:
    (secrets / "DB_URI").write_text("postgresql://u:s3cret@h/d")
    environ = {"REDIS_URL": "redis://:s3cret@h", "ACCESS_LOG": "on", "CACHE_TTL": "90"}
    rows = load(**environ, SECRETS_DIR=str(secrets)).shown()
    shown = {row.name: row[1:] for row in rows}
    documented = {name for name in documented_defaults() if name != "OTEL_*"}
    assert shown.keys() == documented
    assert shown["SECRETS_DIR"] == (str(secrets), "variable SECRETS_DIR")
    assert shown["DB_URI"] == ("secret", f"file {secrets}/DB_URI")
    assert shown["DB_READ_URI"] == ("", "default")
    assert shown["CACHE_URI"] == ("secret", "variable REDIS_URL")
    assert shown["CACHE_TTL"] == ("90", "variable CACHE_TTL")
    assert shown["TIMEZONE"] == ("UTC", "default")
    assert shown["ACCESS_LOG"] == ("on", "variable ACCESS_LOG")
    assert "s3cret" not in str(rows)


def test_a_collector_is_shown_as_a_secret_since_it_may_hold_one() -> None:
    name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    shown = load(**{name: "http://u:s3cret@collector:4318"}).shown()[-1]
    assert shown == ("OTEL_EXPORTER_OTLP_ENDPOINT", "secret", f"variable {name}")


def test_a_cache_that_is_not_used_is_shown_so() -> None:
    shown = {row.name: row[1:] for row in load(REDIS_URL="redis://h").shown()}
    assert shown["CACHE_URI"] == ("", "variable REDIS_URL, not used with SQLite")
