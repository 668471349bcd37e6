"""`hello migrate`: bring the database's schema up to date, or back, or say what is missing."""

import argparse
import logging
import os
import sys
from contextlib import closing

import peewee
from playhouse.migrations import MigrationError

from hello.credentials import Credentials
from hello.database import schema
from hello.environment import MISCONFIGURED, SettingsError, Source
from hello.errors import DatabaseUnavailable
from hello.settings import Settings
from hello.uris import DatabaseURI

#: Exit codes, beside MISCONFIGURED. UNKNOWN is for `--check` alone.
DONE, FAILED, PENDING, UNKNOWN = 0, 1, 1, 3

_as_json = False


def main(options: argparse.Namespace) -> int:
    """Do what the options ask for; return the exit code.

    With LOG_FORMAT=json all that is said is lines of a log: in a pod it is beside the service's.
    """
    global _as_json
    try:
        _as_json = (Source(os.environ).get("LOG_FORMAT") or "").lower() == "json"
        return _migrate(options)
    except SettingsError as ex:
        _say(str(ex), logging.ERROR)
        return MISCONFIGURED
    except (DatabaseUnavailable, MigrationError) as ex:
        _say(str(ex), logging.ERROR)
    except (peewee.DatabaseError, peewee.InterfaceError) as ex:
        _say(schema.reason(ex), logging.ERROR)
    return UNKNOWN if options.check else FAILED


def _migrate(options: argparse.Namespace) -> int:
    settings = Settings.load()
    if settings.db_uri.is_memory:
        _print("a database in memory is created with the current schema; nothing to do")
        return DONE
    try:
        database = schema.connect(settings.db_uri, settings.connect_timeout, settings.db_engine)
    except schema.Refused:
        raise
    except DatabaseUnavailable as ex:
        if options.down is not None or not _is_current_on_a_replica(settings):
            raise
        _print(f"nothing to do: a replica has the current schema; the primary is away: {ex}")
        return DONE
    try:
        if options.check:
            missing = schema.pending(schema.applied(database))
            for name in missing:
                _print(f"pending: {name}")
            return PENDING if missing else DONE
        if options.down is not None:
            target = options.down or None
            if not _may_lose(schema.losses(database, target, wait=options.wait, say=_say), options):
                return FAILED
            names = schema.downgrade(database, target, wait=options.wait, say=_say)
            verb = "reverted"
        else:
            names = schema.upgrade(database, wait=options.wait, say=_say)
            verb = "applied"
        for name in names:
            _print(f"{verb}: {name}")
        if not names:
            _print("nothing to do")
        return DONE
    finally:
        database.close()


def _is_current_on_a_replica(settings: Settings) -> bool:
    """Whether a replica has the current schema: then the primary has it, which is never behind."""
    uris = Credentials(settings.source)
    for number in range(settings.replicas):
        try:
            replica = schema.connect(DatabaseURI(uris.replica(number)), settings.connect_timeout)
            with closing(replica):
                if not schema.pending(schema.applied(replica)):
                    return True
        except (DatabaseUnavailable, peewee.DatabaseError, peewee.InterfaceError):
            continue
    return False


def _may_lose(losses: list[str], options: argparse.Namespace) -> bool:
    """Say what will be lost; return whether an option or an answer agrees to it."""
    for what in losses:
        _say(f"this loses {what}")
    if not losses or options.yes:
        return True
    if sys.stdin.isatty():
        print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return True
    _say("nothing was changed; --yes reverts all the same")
    return False


def _print(result: str) -> None:
    print(_line(result, logging.INFO) if _as_json else result)


def _say(what: str, level: int = logging.INFO) -> None:
    """Print progress on standard error: standard output has the result."""
    text = _line(what, level) if _as_json else f"hello: {what}"
    print(text, file=sys.stderr, flush=True)


def _line(what: str, level: int) -> str:
    from hello.telemetry.logs import JSONFormatter  # imports gunicorn

    return JSONFormatter().format(
        logging.LogRecord("hello.migrate", level, __file__, 0, what, None, None)
    )
