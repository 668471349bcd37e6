"""The zones of the IANA database, read from the package `tzdata` alone: the same on every host.

A host's own database has more names, as `localtime` and `posix/UTC`, and older or newer rules.
"""

import zoneinfo
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

# The host's zones, in /usr/share/zoneinfo or PYTHONTZPATH, are not used.
zoneinfo.reset_tzpath(())

#: The names of the zones. `Factory` is left out: it stands for a host whose zone nobody has set.
NAMES = frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split()) - {"Factory"}


@cache
def parse(name: str) -> ZoneInfo:
    """The zone of a name; raises ValueError if there is none."""
    if name not in NAMES:
        raise ValueError("must be a time zone of the IANA database, as Europe/Berlin")
    return ZoneInfo(name)
