"""The URIs of databases, checked."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import psycopg2
import regex
from psycopg2.extensions import parse_dsn


@dataclass(frozen=True)
class DatabaseURI:
    """The address of a database, as given. It may hold a password."""

    text: str

    @classmethod
    def parse(cls, text: str) -> "DatabaseURI":
        """Check a URI; raises ValueError, with a message that does not hold the text."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("must be UTF-8") from None
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
                raise ValueError("must be a URI that libpq understands") from None
            # libpq checks ports only when it connects. A `/` in a password, not written %2F, makes
            # a part of the password a port, which libpq would then quote in the log.
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
        """Whether there is no such SQLite file. Opening it would make an empty one."""
        return self.is_sqlite and not self.is_memory and not Path(self.sqlite_path).exists()

    @property
    def sqlite_path(self) -> str:
        """The path in the URI: `sqlite:///a.db` is relative, `sqlite:////a.db` is absolute."""
        return unquote(self.text.removeprefix("sqlite://")[1:]) or ":memory:"

    def __repr__(self) -> str:
        return "DatabaseURI(…)"


def parse_replica_uris(text: str) -> list[str]:
    """A libpq URI for each replica. Commas separate URIs in `text`, and hosts in a URI.

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
