"""Two instances behind nginx, as docs/one-machine.md has it: by the configuration that is there.

`-rP` shows how many requests there were.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import CHROMEDRIVER, CHROMIUM, chromium
from tests.support.nginx import NGINX, PASSWORD, USER, Nginx
from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port
from tests.support.service import SERVE, Client, Service, day, load, migrate

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="needs nginx"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]

CLIENTS = 8
#: Requests that are answered before the next thing happens.
MEANWHILE = 100


class Instances:
    """Two of them, on ports that stay."""

    def __init__(self, uri: str) -> None:
        self._settings = {"DB_URI": uri, "ACCESS_LOG": "on"}
        self.running: list[Service] = []
        self._start(free_port())
        self._start(free_port())

    def _start(self, port: int) -> None:
        service = Service(SERVE, None, PORT=str(port), **self._settings)
        service.port = port
        self.running.append(service.wait_until())

    @property
    def ports(self) -> tuple[int, int]:
        one, two = self.running
        return one.port, two.port

    def restart_next(self) -> None:
        service = self.running.pop(0)
        assert service.stop() == 0
        self._start(service.port)

    def stop(self) -> None:
        for service in self.running:
            service.stop()


@pytest.fixture
def instances(shared_cluster: Cluster, own_database: str) -> Iterator[Instances]:
    uri = shared_cluster.uri(own_database)
    assert migrate(uri).returncode == 0
    instances = Instances(uri)
    yield instances
    instances.stop()


@pytest.fixture
def nginx(instances: Instances, tmp_path: Path) -> Iterator[Nginx]:
    nginx = Nginx(tmp_path, instances.ports)
    yield nginx
    nginx.close()


def test_who_has_the_password_is_served_and_no_log_names_a_user(
    nginx: Nginx, instances: Instances
) -> None:
    with nginx.client("wrong") as stranger:
        assert stranger.put("somebody", day(1)).status == 401
    with nginx.client() as client:
        stored = client.put("somebody", day(1))
        assert stored.status == 204
        assert client.get("somebody").json["message"].startswith("Hello, somebody! ")
        assert client.request("GET", "/metrics").status == 404
        large = client.request("PUT", "/hello/somebody", b"x" * 5000)
        assert (large.status, large.json["title"]) == (413, "Body too large")
    identity = stored.headers["X-Request-ID"]
    eventually(lambda: f" 204 {identity}\n" in nginx.log)
    # The same request is in the log of the instance that answered it.
    eventually(lambda: any(identity in service.log for service in instances.running))
    assert "somebody" not in nginx.log


def test_a_restart_of_one_instance_after_the_other_fails_no_request(
    nginx: Nginx, instances: Instances
) -> None:
    sent = [0] * CLIENTS
    wrong: list[int] = []

    def visit(client: Client, number: int) -> None:
        name = f"user-{number}"
        for answer, expected in (
            (client.put(name, day(sent[number])), 204),
            (client.get(name), 200),
        ):
            sent[number] += 1
            if answer.status != expected:
                wrong.append(answer.status)

    def go_on() -> None:
        goal = sum(sent) + MEANWHILE
        eventually(lambda: sum(sent) > goal, within=60)

    def return_to(port: int) -> None:
        """nginx leaves alone, for up to two seconds, who was away: the other must not go yet."""
        before = nginx.answers_of(port)
        eventually(lambda: nginx.answers_of(port) > before, within=60)

    with load(nginx, CLIENTS, visit):
        for _ in range(2):
            go_on()
            instances.restart_next()
            return_to(instances.running[-1].port)
        go_on()
    print(f"{sum(sent)} requests, {nginx.log.count(', ')} of them asked the other instance")
    assert wrong == []


@pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="needs Chromium and its driver (Debian: chromium, chromium-driver)",
)
def test_the_page_sends_the_password_that_the_reader_has(nginx: Nginx) -> None:
    with chromium() as browser:
        browser.open(f"http://{USER}:{PASSWORD}@localhost:{nginx.plain_port}/docs")
        browser.wait_for("main:not([aria-busy])")
        browser.find("#putBirthday button").click()
        answer = browser.wait_for("#putBirthday .answer > :first-child")
        assert answer.text.startswith("204")


def test_with_both_away_nginx_says_so_itself(nginx: Nginx, instances: Instances) -> None:
    instances.stop()
    with nginx.client() as client:
        assert client.get("somebody").status == 502
