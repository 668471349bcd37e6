"""How a setting is declared, read, checked and shown. `hello.settings` has the service's own.

A class of settings has a field for each, made by `setting`, and reads all of them by `read`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self, TypeVar

from hello.environment import DEFAULT_SECRETS_DIR, SettingsError, Source, is_this_machines_name

T = TypeVar("T")


def setting(name: str, parse: Callable[[str], T], default: T, *, secret: str | None = None) -> T:
    """Declare a field of a class of settings.

    `parse` turns the text of the setting `name` into its value, or raises ValueError with a message
    that does not hold the text. A setting that may hold a password is never shown: `secret` is what
    stands for its default.
    """
    declared: T = field(default=default, metadata={"name": name, "parse": parse, "secret": secret})
    return declared


class Shown(NamedTuple):
    """A setting as people are shown it: without what may hold a password."""

    name: str
    value: str
    #: Where it comes from.
    origin: str


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 3600:
        raise ValueError("must be a number of seconds, at least a millisecond and at most an hour")
    return value


def boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be on or off")


def one_of(*words: str) -> Callable[[str], str]:
    """What parses one of some words, in lower case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return parse


@dataclass(frozen=True, kw_only=True)
class DeclaredSettings:
    """What every class of settings can do: be read from the environment, checked, and shown."""

    source: Source

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read and check each setting; raises SettingsError for the first that is wrong."""
        source = Source(environ)
        if environ.get("SECRETS_DIR") and not source.directory.is_dir():
            raise SettingsError("SECRETS_DIR: is no directory")
        values: dict[str, Any] = {
            declared.name: value
            for declared in fields(cls)
            if declared.metadata
            and (value := source.parse(declared.metadata["name"], declared.metadata["parse"]))
            is not None
        }
        return cls(source=source, **values)

    @classmethod
    def names(cls) -> list[str]:
        """The names of all settings that are declared."""
        return [each.metadata["name"] for each in fields(cls) if each.metadata]

    @classmethod
    def check(cls, name: str, environ: Mapping[str, str]) -> None:
        """Check one setting alone; raises SettingsError if it is wrong."""
        [declared] = [each for each in fields(cls) if each.metadata.get("name") == name]
        Source(environ).parse(name, declared.metadata["parse"])

    def shown(self) -> list[Shown]:
        """Every setting, its value, and where that comes from."""
        directory = self.source.directory
        origin = "default" if str(directory) == DEFAULT_SECRETS_DIR else "variable SECRETS_DIR"
        rows = [Shown("SECRETS_DIR", str(directory), origin)]
        for declared in fields(self):
            if declared.metadata:
                name, secret = declared.metadata["name"], declared.metadata["secret"]
                rows.append(self._show(name, getattr(self, declared.name), secret))
        return rows

    def _show(self, name: str, value: object, secret: str | None) -> Shown:
        origin = self.source.origin(name)
        if name == "HOST" and is_this_machines_name(self.source.get(name) or ""):
            origin = f"default, since {origin} is this machine's name"
        if secret is not None:
            return Shown(name, secret if origin == "default" else "secret", origin)
        if isinstance(value, bool):
            return Shown(name, "on" if value else "off", origin)
        return Shown(name, f"{value:g}" if isinstance(value, float) else str(value), origin)
