"""A checkout of its own, in which a test may type what a developer types."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copy_to(path: Path, *names: str) -> Path:
    """Copy files and directories of this checkout; its virtual environment is there, installed."""
    for name in names:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, path / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, path)
    environment = path / ".venv"
    environment.mkdir()
    # scripts/install makes these; newer than the copies, they say that nothing is to be done.
    stamps = ("runtime", "test")
    for entry in Path(sys.prefix).iterdir():
        if entry.name not in stamps:
            (environment / entry.name).symlink_to(entry)
    for name in stamps:
        (environment / name).touch()
    return path
