"""The source of settings: environment variables, and files that are mounted in their place.

Any setting may be a file of its name in the directory `SECRETS_DIR` instead of an
environment variable; the variable wins. Kubernetes mounts a Secret like that. `hello healthcheck`
reads its settings here and imports no more of the service, since it runs every few seconds.
"""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

DEFAULT_SECRETS_DIR = "/etc/hello/secrets"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080

#: The names that hosting platforms give to settings. A setting's own name wins.
PLATFORM_NAMES = {"DB_URI": "DATABASE_URL", "CACHE_URI": "REDIS_URL"}

#: The exit code of every command if a setting is wrong: the one that argparse has for options.
MISCONFIGURED = 2

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is wrong. The message names it and never holds its value."""


class Found(NamedTuple):
    """The text of a setting, and where it was found."""

    text: str
    #: The setting's own name, or the one that platforms give it.
    name: str
    #: `variable` or `file`.
    place: str


class Source:
    """The source of settings: variables first, then files in a directory.

    Nothing is kept, so that a change of a file is seen. Every method raises SettingsError.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.directory = Path(environ.get("SECRETS_DIR") or DEFAULT_SECRETS_DIR)

    def find(self, name: str) -> Found | None:
        """A setting as it is now; None if there is none, or an empty one."""
        for each in (name, PLATFORM_NAMES.get(name)):
            if each is None:
                continue
            if self.environ.get(each):
                return Found(self.environ[each], each, "variable")
            if text := self._read(each):
                return Found(text, each, "file")
        return None

    def origin(self, name: str) -> str:
        """Where a setting comes from, in words."""
        found = self.find(name)
        if found is None:
            return "default"
        return (
            f"{found.place} {self.directory / found.name if found.place == 'file' else found.name}"
        )

    def _read(self, name: str) -> str:
        try:
            return (self.directory / name).read_text("utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except (OSError, UnicodeDecodeError) as ex:
            raise SettingsError(f"{name}: its file cannot be read ({type(ex).__name__})") from None

    def get(self, name: str) -> str | None:
        """The text of a setting as it is now; None if there is none, or an empty one."""
        found = self.find(name)
        return found.text if found else None

    def parse(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The value of a setting as it is now; None if there is none.

        `parse` makes it of the text, or raises ValueError with a message that does not hold it.
        """
        found = self.find(name)
        if found is None:
            return None
        try:
            return parse(found.text)
        except ValueError as ex:
            raise SettingsError(f"{found.name}: {ex}") from None


def integer(low: int, high: int) -> Callable[[str], int]:
    """What parses a whole number within bounds."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def is_this_machines_name(host: str) -> bool:
    """Whether HOST is what some shells export by this name: what the machine is called.

    Nobody has asked then for an address to listen on.
    """
    return host.partition(".")[0].lower() == socket.gethostname().partition(".")[0].lower()


def listen_on(host: str) -> str:
    """What HOST means: an address, or the default where it is only the machine's name."""
    return DEFAULT_HOST if is_this_machines_name(host) else host
