"""`python -m hello serve | migrate`"""

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
            names = schema.downgrade(database, options.down or None, wait=options.wait)
            verb = "reverted"
        else:
            names = schema.upgrade(database, wait=options.wait)
            verb = "applied"
        for name in names:
            print(f"{verb}: {name}")
        if not names:
            print("nothing to do")
        return 0
    finally:
        database.close()


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
