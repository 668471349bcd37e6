"""`hello serve | migrate | check | forget | settings | healthcheck`, or `python -m hello …`.

Each command imports what it needs when it runs: `healthcheck` runs every few seconds.
"""

import argparse
import os
import shlex
import sys

from hello import __version__
from hello.environment import MISCONFIGURED, SettingsError

#: Exit codes of `forget`, beside MISCONFIGURED.
ERASED, NO_SUCH_USER, UNKNOWN = 0, 1, 3


def serve(_options: argparse.Namespace, extra: list[str]) -> int:
    """Replace this process with gunicorn, so that signals reach it. Raises SettingsError."""
    command = ["gunicorn", "-c", "python:hello.server", *extra, "hello.app:wsgi()"]
    os.execve(sys.executable, [sys.executable, "-m", *command], _gunicorns_environment())


def _gunicorns_environment() -> dict[str, str]:
    """The environment, without what gunicorn fails on before it reads its configuration.

    Raises SettingsError.
    """
    from hello.settings import Settings

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
    from hello import migrate

    return migrate.main(options)


def check(options: argparse.Namespace, _extra: list[str]) -> int:
    from hello import check

    return check.main(as_json=options.json, timeout=options.timeout)


def forget(options: argparse.Namespace, _extra: list[str]) -> int:
    from hello.errors import Unavailable
    from hello.forget import forget

    try:
        erased = forget(options.username)
    except Unavailable as ex:
        _say(str(ex))
        return UNKNOWN
    print("erased" if erased else "no such user")
    return ERASED if erased else NO_SUCH_USER


def settings(_options: argparse.Namespace, _extra: list[str]) -> int:
    from hello.settings import Settings

    rows = Settings.load().shown()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return 0


def healthcheck(_options: argparse.Namespace, _extra: list[str]) -> int:
    from hello import healthcheck

    return healthcheck.main()


def _say(what: str) -> None:
    print(f"hello: {what}", file=sys.stderr, flush=True)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("must be a number of seconds, at most 3600")
    return value


class _ServeHelp(argparse.Action):
    """The help of `serve` names every setting, which no other command needs to import for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from hello.settings import Settings

        names = ", ".join(Settings.names())
        parser.epilog = (
            f"settings are environment variables, or files of that name in SECRETS_DIR: {names}."
            " `hello settings` shows them. Options are gunicorn's: `python -m gunicorn --help`"
        )
        parser.print_help()
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hello", description="A birthday service.")
    parser.add_argument("--version", action="version", version=f"hello {__version__}")
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser(
        "serve", help="run the service; options are gunicorn's", add_help=False
    )
    command.set_defaults(run=serve)
    command.add_argument(
        "-h", "--help", action=_ServeHelp, nargs=0, help="show this message, with every setting"
    )

    command = commands.add_parser(
        "migrate",
        help="bring the database's schema up to date",
        epilog="exit status: 0 done; 1 it failed, or with --check: something is missing; 2 a"
        " setting or an option is wrong; 3 with --check: it could not find out",
    )
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
    command.set_defaults(run=check)
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
    command.set_defaults(run=forget)
    command.add_argument("username", metavar="USERNAME", help="one with a - in front goes after --")

    command = commands.add_parser(
        "settings",
        help="show each setting and where it comes from",
        description="Show each setting, its value, and where that comes from. A value that may"
        " hold a password is shown as: secret.",
        epilog="exit status: 0 all are right; 2 one is wrong, and the line names it",
    )
    command.set_defaults(run=settings)

    command = commands.add_parser(
        "healthcheck",
        help="ask the service on this host whether it is ready",
        description="Ask the service on this host, by HOST and PORT, whether it is ready: for the"
        " image's HEALTHCHECK. Kubernetes asks by itself.",
        epilog="exit status: 0 ready; 1 not ready, or no answer; 2 a setting is wrong",
    )
    command.set_defaults(run=healthcheck)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options, extra = _parser().parse_known_args(arguments)
    if extra and options.run is not serve:
        _parser().error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        return int(options.run(options, extra))
    except SettingsError as ex:
        _say(str(ex))
        return MISCONFIGURED


if __name__ == "__main__":
    sys.exit(main())
