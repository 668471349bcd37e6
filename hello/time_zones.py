"""The zones of the IANA database: those of the package `tzdata` alone, the same on every host.

A host has more names, as `localtime` and `posix/UTC`, and rules of its own age.
"""

import zoneinfo
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

# Whatever the host has in /usr/share/zoneinfo, or names in PYTHONTZPATH.
zoneinfo.reset_tzpath(())

#: `Factory` is in the database, and says of itself that nobody has set a zone.
NAMES = frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split()) - {"Factory"}


@cache
def parse(name: str) -> ZoneInfo:
    """The zone of a name; raises ValueError."""
    if name not in NAMES:
        raise ValueError("must be a time zone of the IANA database, as Europe/Berlin")
    return ZoneInfo(name)
