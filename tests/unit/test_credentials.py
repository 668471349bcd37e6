from collections.abc import Callable
from pathlib import Path

import pytest

from hello.credentials import Credentials
from hello.environment import Source
from hello.errors import Misconfigured


def test_a_mounted_secret_is_read_again(tmp_path: Path) -> None:
    # Kubernetes replaces the directory behind a symbolic link.
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "DB_URI").write_text(f"postgresql://user:{version}@db/hello")
    (tmp_path / "..data").symlink_to("old")
    (tmp_path / "DB_URI").symlink_to("..data/DB_URI")
    credentials = Credentials(Source({"SECRETS_DIR": str(tmp_path)}))
    assert credentials.primary() == "postgresql://user:old@db/hello"
    (tmp_path / "..tmp").symlink_to("new")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert credentials.primary() == "postgresql://user:new@db/hello"


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("DB_URI", Credentials.primary),
        ("CACHE_URI", Credentials.cache),
        ("DB_READ_URI", lambda u: u.replica(0)),
    ],
)
@pytest.mark.parametrize("text", ["mysql://user:s3cret@host/hello", ""])
def test_a_uri_that_became_wrong_or_was_removed_is_said_by_whoever_connects(
    tmp_path: Path, name: str, ask: Callable[[Credentials], str], text: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(Misconfigured, match=f"^{name}: ") as caught:
        ask(Credentials(Source({"SECRETS_DIR": str(tmp_path)})))
    assert "s3cret" not in str(caught.value)


def test_a_database_is_not_exchanged_for_one_in_memory_under_a_service() -> None:
    with pytest.raises(Misconfigured, match="DB_URI: changed to SQLite, which needs a restart"):
        Credentials(Source({"DB_URI": "sqlite://"})).primary()
