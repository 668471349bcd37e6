"""`python -m hello serve | migrate | check`"""

import argparse
import os
import sys

import peewee
from playhouse.migrations import MigrationError

from hello import schema
from hello.errors import DatabaseUnavailable
from hello.settings import Settings, SettingsError


def serve(options: argparse.Namespace, extra: list[str]) -> int:
    """Become gunicorn: the same process, so that signals reach it."""
    command = ["gunicorn", "-c", "python:hello.server", *extra, "hello.app:wsgi()"]
    os.execv(sys.executable, [sys.executable, "-m", *command])


def migrate(options: argparse.Namespace, extra: list[str]) -> int:
    settings = Settings.load()
    if settings.db_uri.is_memory:
        print("a database in memory is created with the current schema; nothing to do")
        return 0
    database = schema.connect(settings.db_uri, settings.connect_timeout)
    try:
        if options.check:
            missing = schema.pending(schema.applied(database))
            for name in missing:
                print(f"pending: {name}")
            return 1 if missing else 0
        if options.down is not None:
            names = schema.downgrade(database, options.down or None, wait=options.wait, say=_say)
            verb = "reverted"
        else:
            names = schema.upgrade(database, wait=options.wait, say=_say)
            verb = "applied"
        for name in names:
            print(f"{verb}: {name}")
        if not names:
            print("nothing to do")
        return 0
    finally:
        database.close()


def _say(what: str) -> None:
    """Progress, on standard error: standard output has the result."""
    print(f"hello: {what}", file=sys.stderr, flush=True)


def check(options: argparse.Namespace, extra: list[str]) -> int:
    from hello import check  # all that the service is made of: `serve` has no use for it here

    return check.main(as_json=options.json, timeout=options.timeout)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise ValueError
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hello", description="A birthday service.")
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("serve", help="run the service; options are gunicorn's")
    command.set_defaults(run=serve)

    command = commands.add_parser("migrate", help="bring the database's schema up to date")
    command.set_defaults(run=migrate)
    choice = command.add_mutually_exclusive_group()
    choice.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a script is pending"
    )
    choice.add_argument(
        "--down",
        nargs="?",
        const="",
        metavar="SCRIPT",
        help="revert the last script, or all back to and including SCRIPT",
    )
    command.add_argument(
        "--wait", type=float, default=60, metavar="SECONDS", help="for another migration (60)"
    )

    command = commands.add_parser(
        "check",
        help="say what works and what does not",
        description="Ask the databases and the cache, change nothing, and say what works.",
        epilog="exit status: 0 all of it works; 1 something does not: it may be that requests are"
        " answered all the same, the lines GET and PUT say so; 2 a setting or an option is wrong",
    )
    command.set_defaults(run=check)
    command.add_argument("--json", action="store_true", help="one JSON object, for machines")
    command.add_argument(
        "--timeout", type=_seconds, default=5, metavar="SECONDS", help="for each of them (5)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    options, extra = _parser().parse_known_args(arguments)
    if extra and options.run is not serve:
        _parser().error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        return int(options.run(options, extra))
    except (
        SettingsError,
        DatabaseUnavailable,
        MigrationError,
        peewee.DatabaseError,
        peewee.InterfaceError,
    ) as ex:
        print(f"hello: {str(ex).strip()}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
