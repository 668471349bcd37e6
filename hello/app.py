"""The WSGI application: every route on one page."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, tzinfo
from functools import partial
from typing import Any, TypeAlias

import falcon

from hello import problems
from hello.backends import Backends
from hello.batching import Batcher
from hello.checks import Check
from hello.errors import SchemaOutdated
from hello.lifecycle import Process, process
from hello.middleware import CommonHeaders
from hello.resources import docs, health
from hello.resources.hello import Clock, Hello
from hello.resources.root import Root
from hello.settings import Settings
from hello.usernames import Usernames
from hello.users import Users

#: The type stands in quotes, and `falcon.App` is looked up only when an app is made: whoever
#: instruments Falcon puts a class there that is not generic.
App: TypeAlias = "falcon.App[falcon.Request, falcon.Response]"


#: The second in which a zone was asked for its date, and what it said.
_days: dict[tzinfo, tuple[int, date]] = {}


def today(zone: tzinfo) -> date:
    """The date of the clock on the wall, asked of a zone once a second: that takes 3 µs."""
    second = int(time.time())
    asked = _days.get(zone)
    if asked is None or asked[0] != second:
        asked = _days[zone] = second, datetime.fromtimestamp(second, zone).date()
    return asked[1]


def create_app(
    users: Users,
    *,
    usernames: Usernames | None = None,
    time_zone: tzinfo = UTC,
    clock: Clock = today,
    process: Process | None = None,
    checks: Mapping[str, Check] | None = None,
    middleware: Iterable[Any] = (),
) -> App:
    """The WSGI application, wired from its parts.

    `checks` are those of the dependencies that `/health` shows, by name; `middleware` runs before
    and after everything that this function adds.
    """
    process = process or Process()
    app: App = falcon.App()
    for outer in middleware:
        app.add_middleware(outer)
    app.add_middleware(CommonHeaders())
    app.req_options.strip_url_path_trailing_slash = True
    problems.register(app)

    def outdated(req: Any, resp: Any, ex: SchemaOutdated, params: Any) -> None:
        process.has_read = False  # so that the next probe reads again
        problems.unavailable(req, resp, ex, params)

    app.add_error_handler(SchemaOutdated, outdated)
    app.add_route("/", Root())
    app.add_route("/hello/{username}", Hello(users, usernames or Usernames(), time_zone, clock))
    app.add_route("/health", health.Summary(checks or {}, users.ping, process))
    app.add_route("/health/live", health.Live())
    app.add_route("/health/ready", health.Ready(users.ping, process))
    app.add_route("/health/startup", health.Startup())
    app.add_route("/openapi.yaml", docs.OpenAPI("openapi.yaml", "application/yaml"))
    app.add_route("/openapi.json", docs.OpenAPI("openapi.json", falcon.MEDIA_JSON))
    app.add_route("/docs", docs.Page())
    app.add_route("/docs/{asset}", docs.Asset())
    app.add_sink(server_options, prefix=r"\*$")
    return app


def server_options(req: falcon.Request, resp: falcon.Response, **_: object) -> None:
    """`OPTIONS *`: what the server can do, whatever the resource (RFC 9110, section 9.3.7)."""
    if req.method != "OPTIONS":
        raise falcon.HTTPBadRequest(description="Only OPTIONS has the target *.")
    resp.status = falcon.HTTP_204
    resp.set_header("Allow", "GET, HEAD, OPTIONS, PUT")


def wsgi() -> App:
    """The application that the settings describe, for the server. Raises SettingsError."""
    settings = Settings.of_the_start()
    backends = Backends(settings)
    batcher, middleware = _tracing(settings) if settings.traces else (Batcher, [])
    return create_app(
        backends.users(batcher),
        usernames=Usernames(settings.username_pattern),
        time_zone=settings.time_zone,
        process=process,
        checks=backends.checks(),
        middleware=middleware,
    )


def _tracing(settings: Settings) -> tuple[Callable[..., Batcher[Any, Any]], list[Any]]:
    """A maker of batchers, and middleware, that send spans."""
    from hello import traces  # imports OpenTelemetry, which is an extra

    tracer = traces.start(process)
    database = "sqlite" if settings.db_uri.is_sqlite else "postgresql"
    batcher = partial(traces.TracedBatcher, tracer=tracer, database=database)
    return batcher, [traces.RequestSpans(tracer)]
