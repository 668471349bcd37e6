"""Every route on one page."""

from datetime import UTC, date, datetime, tzinfo
from functools import partial

import falcon

from hello import problems
from hello.database import Route, Session, find, save
from hello.errors import DatabaseUnavailable
from hello.lifecycle import Process, process
from hello.middleware import CommonHeaders, RequestID
from hello.postgresql import PostgreSQL
from hello.resources import health
from hello.resources.hello import Clock, Hello
from hello.resources.root import Root
from hello.settings import Settings, SettingsError
from hello.sqlite import SQLiteFile, SQLiteMemory
from hello.usernames import Usernames
from hello.users import Users

App = falcon.App[falcon.Request, falcon.Response]


def today(zone: tzinfo) -> date:
    """The clock on the wall."""
    return datetime.now(zone).date()


def create_app(
    users: Users,
    *,
    usernames: Usernames | None = None,
    time_zone: tzinfo = UTC,
    clock: Clock = today,
    process: Process | None = None,
) -> App:
    """The WSGI application, wired from its parts."""
    process = process or Process()
    app = App()
    app.add_middleware(RequestID())
    app.add_middleware(CommonHeaders())
    app.req_options.strip_url_path_trailing_slash = True
    problems.register(app)

    app.add_route("/", Root())
    app.add_route("/hello/{username}", Hello(users, usernames or Usernames(), time_zone, clock))
    app.add_route("/health", health.Summary({"database": users.ping}, process))
    app.add_route("/health/live", health.Live())
    app.add_route("/health/ready", health.Ready(users.ping, process))
    app.add_route("/health/startup", health.Startup())
    return app


def create_users(settings: Settings) -> Users:
    """The users, with the lanes that the settings ask for."""
    route: Route
    read_lanes = settings.read_lanes
    if settings.db_uri.is_sqlite:
        read_lanes = 1  # SQLite answers within the call: a second lane would never run
        path = settings.db_uri.sqlite_path
        route = SQLiteMemory() if settings.db_uri.is_memory else SQLiteFile(path)
    else:
        route = PostgreSQL(
            partial(_current_uri, settings),
            connect_timeout=settings.connect_timeout,
            statement_timeout=settings.statement_timeout,
        )
    return Users(
        [Session(route, find) for _ in range(read_lanes)],
        [Session(route, save)],
        max_waiting=settings.max_waiting,
        timeout=settings.request_timeout,
    )


def _current_uri(settings: Settings) -> str:
    """The URI of PostgreSQL as it is now: a mounted Secret changes while the service runs."""
    try:
        uri = settings.source.database_uri()
    except SettingsError as ex:
        raise DatabaseUnavailable(str(ex)) from None
    if uri.is_sqlite:
        raise DatabaseUnavailable("DB_URI: changed to SQLite, which needs a restart")
    return uri.text


def wsgi() -> App:
    """The application as the environment describes it, for the server."""
    settings = Settings.load()
    return create_app(
        create_users(settings),
        usernames=Usernames(settings.username_pattern),
        time_zone=settings.time_zone,
        process=process,
    )
