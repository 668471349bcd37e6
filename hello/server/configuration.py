"""gunicorn's settings and hooks: `gunicorn -c python:hello.server 'hello.app:wsgi()'`."""

# Patching comes first, so that no module keeps an unpatched socket or lock.
from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Mapping  # noqa: E402
from errno import EADDRINUSE  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

from hello.environment import MISCONFIGURED, SettingsError, is_this_machines_name  # noqa: E402
from hello.server.worker import Worker  # noqa: E402
from hello.settings import Settings  # noqa: E402
from hello.telemetry import logs, metrics  # noqa: E402
from hello.telemetry.admin import Admin  # noqa: E402


def _refuse(reason: object) -> NoReturn:
    """Stop the start with one line that names the setting, instead of gunicorn's traceback."""
    print(f"hello: {reason}", file=sys.stderr)
    sys.exit(MISCONFIGURED)


try:
    _settings = Settings.load()
except SettingsError as ex:
    _refuse(ex)

logs.configure(_settings.log_format, _settings.log_level)

# gunicorn would try for five seconds, and show a traceback for a name without an address.
_family = socket.AF_INET6 if ":" in _settings.host else socket.AF_INET
try:
    with socket.socket(_family) as _probe:
        _probe.bind((_settings.host, 0))
except (OSError, UnicodeError) as ex:
    _refuse(f"HOST: cannot listen there: {getattr(ex, 'strerror', None) or 'not a host name'}")

# The address to listen on. An IPv6 address needs brackets beside a port.
bind = (
    f"[{_settings.host}]:{_settings.port}"
    if ":" in _settings.host
    else (f"{_settings.host}:{_settings.port}")
)
# One worker uses one core.
workers = _settings.web_concurrency
# gunicorn's gevent worker with deadlines, a short way for plain requests, and a clean drain.
worker_class = "hello.server.worker.Worker"
# Connections of each worker. When there are more, those that have waited longest for their
# clients give way: see hello/server/room.py.
worker_connections = _settings.max_connections
# Seconds that an idle connection is kept: longer than the 60 s after which a load balancer drops
# it. If the service dropped it first, the balancer would now and then send a request into a
# connection that is being closed, and answer 502. A new connection has HEAD_TIMEOUT for its
# first request.
keepalive = 75
# After SIGTERM the workers end by themselves within GRACEFUL_TIMEOUT; then they are killed.
graceful_timeout = _settings.graceful_timeout + 3
# A worker whose event loop has stood still for so many seconds is replaced.
timeout = 30
# Heartbeats are file writes, and on some disks those stall. /dev/shm is memory.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# Bytes. The longest valid path is 64 characters of 4 bytes, percent-encoded: below 1 KiB.
limit_request_line = 4094
# Browsers and proxies send some 30 header fields.
limit_request_fields = 100
# Bytes. A cookie from another service on the same host must not lock a browser out.
limit_request_field_size = 8190
# gunicorn's parser in Python, which hello/server/fallback.py extends. By itself gunicorn takes a
# faster one if it is installed.
http_parser = "python"
# Nothing here depends on the client's address or scheme: no forwarding header is believed.
forwarded_allow_ips = ""
forwarder_headers = ""
# gunicorn would open a control socket in HOME; nothing here uses it.
control_socket_disable = True
# The name in the process list, instead of "gunicorn".
proc_name = "hello"
# The log is one line for each event, on standard output: see hello/telemetry/logs.py.
logger_class = "hello.telemetry.logs.Logger"
errorlog = "-"
loglevel = _settings.log_level
# The access log has a line for each request, without its path, which holds a username.
accesslog = "-" if _settings.access_log else None


def pre_request(_worker: Any, req: Any) -> None:
    """Begin to measure a request, on gunicorn's own path: see hello/server/fallback.py.

    gunicorn's own hook, which this one replaces, logs the path and with it a username.
    """
    req.start = time.monotonic()


def post_request(_worker: Any, req: Any, environ: Mapping[str, Any], resp: Any) -> None:
    """Count a request on gunicorn's own path, unless it ended without an answer."""
    if resp is not None and resp.status:
        metrics.answered(environ, resp.status, time.monotonic() - req.start)


_admin: Admin | None = None

#: The variable that tells a master that SIGUSR2 starts the descriptor of the admin port, which
#: the old master has opened.
_ADMIN_FD = "HELLO_ADMIN_FD"


#: Options of gunicorn's with which other code than this project's would serve, without its
#: deadlines and its drain: what is wrong with each, and whether it is, given gunicorn's `cfg`.
_REFUSED: dict[str, Callable[[Any], bool]] = {
    "certfile and keyfile: TLS ends at what stands before the service": lambda cfg: cfg.is_ssl,
    "proxy_protocol is not understood": lambda cfg: cfg.proxy_protocol != "off",
    "http_protocols: HTTP/2 is not understood": lambda cfg: "h2" in cfg.http_protocols,
    "keepalive must be at least 1": lambda cfg: not cfg.keepalive,
    "worker_class must be hello.server.worker.Worker": lambda cfg: (
        not issubclass(cfg.worker_class, Worker)
    ),
}


def on_starting(server: Any) -> None:
    """Called in the master first: refuse some options, and open the admin port."""
    for reason, is_wrong in _REFUSED.items():
        if is_wrong(server.cfg):
            _refuse(f"gunicorn's option {reason}")
    server.log.info("serving %s", _settings.backends)
    if is_this_machines_name(_settings.source.get("HOST") or ""):
        server.log.warning(
            "HOST is this machine's name, as some shells export it, and is not used: listening on"
            " %s alone; to listen elsewhere, set HOST to an address",
            _settings.host,
        )
    # SIGUSR2 runs these arguments. Of `python -m gunicorn`, gunicorn itself would make the path of
    # a file in gunicorn/, whose modules would then hide those of the standard library.
    server.START_CTX["args"] = sys.orig_argv
    _open_admin_port(server)


def _open_admin_port(server: Any) -> None:
    global _admin
    if not _settings.admin_port:
        return
    try:
        if _settings.admin_port == _settings.port:
            raise OSError(EADDRINUSE, "it is the same as PORT")
        inherited = int(os.environ.pop(_ADMIN_FD)) if _ADMIN_FD in os.environ else None
        _admin = Admin(_settings.host, _settings.admin_port, server.cfg.workers, inherited)
    except OSError as ex:
        reason = f"cannot listen on {_settings.host}, port {_settings.admin_port}: {ex.strerror}"
        if _settings.source.get("ADMIN_PORT"):
            _refuse(f"ADMIN_PORT: {reason}")
        # ADMIN_PORT has its default: nobody asked for this port, and the service goes on.
        server.log.warning("no metrics: %s; set ADMIN_PORT to another port, or to 0", reason)


def pre_exec(server: Any) -> None:
    """Called in what becomes the new master after SIGUSR2: hand the admin port over."""
    if _admin is not None:
        os.set_inheritable(_admin.fileno(), True)
        server.cfg.env_orig[_ADMIN_FD] = str(_admin.fileno())


def pre_fork(_server: Any, worker: Any) -> None:
    """Called in the master: give the worker the admin port, and a slot for its figures."""
    if _admin is not None:
        worker.admin, worker.slot = _admin, _admin.before_fork()


def child_exit(_server: Any, worker: Any) -> None:
    """Called in the master when a worker has ended."""
    if _admin is not None:
        _admin.after_exit(worker.slot)
