"""The admin port, as a worker of a service that listens on it."""

import socket
from typing import Any

import pytest
from falcon import testing

from hello.telemetry.admin import Admin


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The application of a worker, once it has started to answer, which nobody listens for."""
    served: list[Any] = []

    class Server:
        def __init__(self, listener: Any, app: Any, **_: Any) -> None:
            listener.close()
            served.append(app)

        def start(self) -> None:
            pass

    monkeypatch.setattr("gevent.pywsgi.WSGIServer", Server)
    return served


def test_a_worker_without_a_slot_answers_and_says_that_its_figures_are_not_shown(
    served: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    admin = Admin("127.0.0.1", 0, workers=1)
    assert None in [admin.before_fork() for _ in range(100)]
    admin.start(None)
    assert caplog.messages == ["no room for the figures of this worker: they are not shown"]
    answer = testing.TestClient(served[0]).simulate_get("/metrics")
    assert "\nhello_workers 0\n" in answer.text


def test_it_listens_on_an_ipv6_address() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    admin = Admin("::1", 0, workers=1)
    with socket.socket(fileno=admin.fileno()) as listener:
        assert listener.getsockname()[:2] == ("::1", admin.port)
        admin._listener.detach()
