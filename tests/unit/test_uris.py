import pytest

from hello.uris import DatabaseURI, parse_replica_uris


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
