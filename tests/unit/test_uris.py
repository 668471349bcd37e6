from collections.abc import Callable
from pathlib import Path

import pytest

from hello.environment import Source
from hello.errors import Misconfigured
from hello.uris import DatabaseURI, URIs, parse_replica_uris


def test_each_replica_has_a_uri_of_its_own() -> None:
    text = "postgresql://u:p%40@h1,h2:5433/d?sslmode=require, postgresql://h3/d"
    assert parse_replica_uris(text) == [
        "postgresql://u:p%40@h1/d?sslmode=require",
        "postgresql://u:p%40@h2:5433/d?sslmode=require",
        "postgresql://h3/d",
    ]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite://", ":memory:"),
        ("sqlite:///", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite:///a.db", "a.db"),
        ("sqlite:///data/a.db", "data/a.db"),
        ("sqlite:////data/a.db", "/data/a.db"),
        ("sqlite:////data/a%20b%3f.db", "/data/a b?.db"),
    ],
)
def test_sqlite_uris(text: str, path: str) -> None:
    uri = DatabaseURI.parse(text)
    assert (uri.is_sqlite, uri.is_memory, uri.sqlite_path) == (True, path == ":memory:", path)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:p%40ss%2Fword@db.example/hello?sslmode=verify-full",
        "postgres://user@db/hello",
        "postgresql://user@[::1]:5433/hello",
        "postgresql://user@one,two:5433/hello?target_session_attrs=read-write",
        "postgresql://",
    ],
)
def test_postgresql_uris(text: str) -> None:
    uri = DatabaseURI.parse(text)
    assert (uri.text, uri.is_sqlite, uri.is_memory) == (text, False, False)


def test_a_mounted_secret_is_read_again(tmp_path: Path) -> None:
    # Kubernetes replaces the directory behind a symbolic link.
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "DB_URI").write_text(f"postgresql://user:{version}@db/hello")
    (tmp_path / "..data").symlink_to("old")
    (tmp_path / "DB_URI").symlink_to("..data/DB_URI")
    uris = URIs(Source({"SECRETS_DIR": str(tmp_path)}))
    assert uris.primary() == "postgresql://user:old@db/hello"
    (tmp_path / "..tmp").symlink_to("new")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert uris.primary() == "postgresql://user:new@db/hello"


@pytest.mark.parametrize(
    ("name", "ask"),
    [("DB_URI", URIs.primary), ("CACHE_URI", URIs.cache), ("DB_READ_URI", lambda u: u.replica(0))],
)
@pytest.mark.parametrize("text", ["mysql://user:s3cret@host/hello", ""])
def test_a_uri_that_became_wrong_or_was_removed_is_said_by_whoever_connects(
    tmp_path: Path, name: str, ask: Callable[[URIs], str], text: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(Misconfigured, match=f"^{name}: ") as caught:
        ask(URIs(Source({"SECRETS_DIR": str(tmp_path)})))
    assert "s3cret" not in str(caught.value)
