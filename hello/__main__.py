"""`python -m hello serve | migrate | check | forget`"""

import argparse
import logging
import os
import shlex
import sys
from contextlib import closing

import peewee
from playhouse.migrations import MigrationError

from hello.credentials import Credentials
from hello.database import schema
from hello.environment import SettingsError, Source
from hello.errors import DatabaseUnavailable, Unavailable
from hello.settings import MISCONFIGURED, Settings
from hello.uris import DatabaseURI

#: Exit codes, beside MISCONFIGURED. UNKNOWN is for `migrate --check` and `forget` alone.
DONE, FAILED, PENDING, NO_SUCH_USER, UNKNOWN = 0, 1, 1, 1, 3

#: Whether all that is said is lines of a log: in a pod, `migrate` writes beside the service.
_as_json = False


def serve(_options: argparse.Namespace, extra: list[str]) -> int:
    """Replace this process with gunicorn, so that signals reach it. Raises SettingsError."""
    command = ["gunicorn", "-c", "python:hello.server", *extra, "hello.app:wsgi()"]
    os.execve(sys.executable, [sys.executable, "-m", *command], _gunicorns_environment())


def _gunicorns_environment() -> dict[str, str]:
    """The environment, without what gunicorn fails on before it reads its configuration.

    Raises SettingsError.
    """
    environ = dict(os.environ)
    Settings.check("WEB_CONCURRENCY", environ)
    if not environ.get("WEB_CONCURRENCY"):
        environ.pop("WEB_CONCURRENCY", None)
    environ.pop("FORWARDED_ALLOW_IPS", None)  # the service believes nobody
    try:
        shlex.split(environ.get("GUNICORN_CMD_ARGS", ""))
    except ValueError as ex:
        raise SettingsError(f"GUNICORN_CMD_ARGS: {ex}") from None
    return environ


def migrate(options: argparse.Namespace, _extra: list[str]) -> int:
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


def check(options: argparse.Namespace, _extra: list[str]) -> int:
    from hello import check  # imports the whole service, which the other commands do without

    return check.main(as_json=options.json, timeout=options.timeout)


def forget(options: argparse.Namespace, _extra: list[str]) -> int:
    from hello.forget import forget  # imports the whole service, as `check` does

    try:
        erased = forget(options.username)
    except Unavailable as ex:
        _say(str(ex))
        return UNKNOWN
    print("erased" if erased else "no such user")
    return DONE if erased else NO_SUCH_USER


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("must be a number of seconds, at most 3600")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hello", description="A birthday service.")
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("serve", help="run the service; options are gunicorn's")
    command.set_defaults(run=serve, check=False)

    command = commands.add_parser("migrate", help="bring the database's schema up to date")
    command.set_defaults(run=migrate)
    choice = command.add_mutually_exclusive_group()
    choice.add_argument(
        "--check",
        action="store_true",
        help="change nothing; exit 1 if a script is pending, 3 if that could not be found out",
    )
    choice.add_argument(
        "--down",
        nargs="?",
        const="",
        metavar="SCRIPT",
        help="revert the last script, or all back to and including SCRIPT",
    )
    command.add_argument(
        "--yes", action="store_true", help="with --down: also if data is lost; it is said which"
    )
    command.add_argument(
        "--wait", type=_seconds, default=60, metavar="SECONDS", help="for another migration (60)"
    )

    command = commands.add_parser(
        "check",
        help="say what works and what does not",
        description="Ask the databases and the cache, change nothing, and say what works.",
        epilog="exit status: 0 all of it works; 1 something does not: it may be that requests are"
        " answered all the same, the lines GET and PUT say so; 2 a setting or an option is wrong",
    )
    command.set_defaults(run=check, check=False)
    command.add_argument("--json", action="store_true", help="one JSON object, for machines")
    command.add_argument(
        "--timeout", type=_seconds, default=5, metavar="SECONDS", help="for each of them (5)"
    )

    command = commands.add_parser(
        "forget",
        help="erase a user",
        description="Erase a user from the database and from the cache, with the settings of the"
        " service. Whoever asks for it after that gets 404.",
        epilog="exit status: 0 erased; 1 no such user; 2 a setting or the username is wrong; 3 it"
        " is not certain: the line says what is known, and it can be run again",
    )
    command.set_defaults(run=forget, check=False)
    command.add_argument("username", metavar="USERNAME", help="one with a - in front goes after --")
    return parser


def main(arguments: list[str] | None = None) -> int:
    global _as_json
    options, extra = _parser().parse_known_args(arguments)
    if extra and options.run is not serve:
        _parser().error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        if options.run is migrate:
            _as_json = (Source(os.environ).get("LOG_FORMAT") or "").lower() == "json"
        return int(options.run(options, extra))
    except SettingsError as ex:
        _say(str(ex), logging.ERROR)
        return MISCONFIGURED
    except (DatabaseUnavailable, MigrationError) as ex:
        _say(str(ex), logging.ERROR)
    except (peewee.DatabaseError, peewee.InterfaceError) as ex:
        _say(schema.reason(ex), logging.ERROR)
    return UNKNOWN if options.check else FAILED


if __name__ == "__main__":
    sys.exit(main())
