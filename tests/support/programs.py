"""Programs that these tests run."""

import shutil
import sys
from pathlib import Path


def find(program: str) -> str | None:
    """Its path: beside this Python, as kubectl from its wheel; on the PATH; or on root's."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(program, path=beside) or (
        shutil.which(program) or shutil.which(program, path="/usr/sbin")
    )
