"""What a username may be."""

import unicodedata

import regex

#: Letters and digits of any script, with the marks that belong to them (many
#: scripts write vowels as marks), and `.`, `_`, `-`.
DEFAULT_PATTERN = r"[\p{L}\p{Nd}._-][\p{L}\p{M}\p{Nd}._-]*"

#: In characters, after normalisation. The column is as wide.
MAX_LENGTH = 64

# U+FFFD stands where the path was not UTF-8; PostgreSQL cannot store NUL. Neither
# is in a name, whatever a configured pattern says.
_NUL, _REPLACED = "\0", "\ufffd"


class InvalidUsername(ValueError):
    """The message says what is wrong, for the client."""


class Usernames:
    """The rule that usernames follow.

    `pattern` is a regular expression in the syntax of the `regex` package; it is
    matched against the whole name.
    """

    def __init__(self, pattern: str = DEFAULT_PATTERN) -> None:
        self._matches = regex.compile(pattern).fullmatch

    def parse(self, raw: str) -> str:
        """The name to store: `raw` in Unicode's normal form C; case is kept.

        Raises InvalidUsername.
        """
        name = raw if raw.isascii() else unicodedata.normalize("NFC", raw)
        if not 1 <= len(name) <= MAX_LENGTH:
            raise InvalidUsername(f"A username has 1 to {MAX_LENGTH} characters.")
        if _NUL in name or _REPLACED in name:
            raise InvalidUsername("The username is not valid UTF-8, or contains NUL.")
        if not self._matches(name):
            raise InvalidUsername("The username contains a character that is not allowed.")
        return name
