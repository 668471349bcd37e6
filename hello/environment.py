"""The source of settings: environment variables, and files that are mounted in their place.

Any setting may be a file of its name in the directory `SECRETS_DIR` instead of an
environment variable; the variable wins. Kubernetes mounts a Secret like that.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

DEFAULT_SECRETS_DIR = "/etc/hello/secrets"

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is wrong. The message names it and never holds its value."""


class Source:
    """The source of settings: variables first, then files in a directory.

    Nothing is kept, so that a change of a file is seen. Every method raises SettingsError.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._directory = Path(environ.get("SECRETS_DIR") or DEFAULT_SECRETS_DIR)

    def get(self, name: str) -> str | None:
        """The text of a setting as it is now; None if there is none, or an empty one."""
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

    def parse(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The value of a setting as it is now; None if there is none.

        `parse` makes it of the text, or raises ValueError with a message that does not hold it.
        """
        text = self.get(name)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as ex:
            raise SettingsError(f"{name}: {ex}") from None
