"""An upgrade and a rollback as Kubernetes does them, under load: no request notices."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hello.database import schema
from tests.support.balancer import Balancer, HTTPBalancer, KubeProxy
from tests.support.haproxy import HAPROXY
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import SERVE, Client, Service, day, load, migrate

ROOT = Path(__file__).parents[3]

#: The script after those that there are.
NEXT = f"{len(schema.NAMES) + 1:04}_add_note"

#: A change that the release before does not know about: the expand half of one.
EXPAND = '''"""Let users have notes."""


def up(migrator, db):
    db.execute_sql("ALTER TABLE users ADD COLUMN note text")
'''

#: Clients with a connection each, and the users that each of them stores.
CLIENTS, USERS = 16, 20
#: Seconds between the visits of a client, each a PUT and a GET: at most 800 requests/s, which
#: leaves the machine to the instances that start.
PAUSE = 0.04
#: Requests that are answered before the next thing happens.
MEANWHILE = 400
#: Seconds. A draining service answers, with `Connection: close`, on connections that are used
#: as often as this; one that was idle for longer may be closed while a request is on its way,
#: and HTTP has clients send that again (RFC 9112, 9.3.1).
LINGER = 0.5


class Visitor:
    """Stores dates and asks for them; every request is to be answered as it should.

    Visitors with an even number keep their connection for as long as they can: they meet the
    end of the service that it leads to. The others take a new one for every visit: they meet
    services that accept no more.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._answered = 0.0
        self.sent = 0
        self.sent_again = 0
        #: What went wrong.
        self.failed: list[str] = []
        #: The last date of each user that was answered 204.
        self.stored: dict[str, str] = {}

    def visit(self, client: Client) -> None:
        time.sleep(PAUSE)
        if self._number % 2:
            client.close()
        visits = self.sent // 2
        name, born = f"user-{self._number}-{visits % USERS}", day(visits)
        if self._ask(client, "PUT", lambda: client.put(name, born).status, 204):
            self.stored[name] = born
        self._ask(client, "GET", lambda: client.get(name).status, 200)

    def _ask(self, client: Client, method: str, request: Callable[[], int], expected: int) -> bool:
        self.sent += 1
        start = time.monotonic()
        try:
            try:
                status = request()
            except ConnectionError:
                client.close()
                if start - self._answered < LINGER:
                    raise
                self.sent_again += 1
                status = request()
        except OSError as ex:
            client.close()
            self.failed.append(f"{method}: {ex!r}")
            return False
        self._answered = time.monotonic()
        if status != expected:
            self.failed.append(f"{method}: {status}")
        return status == expected


@pytest.fixture(params=["HAProxy", "kube-proxy"])
def balancer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Balancer]:
    if request.param == "HAProxy" and HAPROXY is None:
        pytest.skip("needs HAProxy")
    balancer = HTTPBalancer(tmp_path) if request.param == "HAProxy" else KubeProxy()
    yield balancer
    balancer.close()


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """A directory with a release that needs another schema."""
    directory = tmp_path / "next"
    shutil.copytree(ROOT / "hello", directory / "hello")
    (directory / "hello" / "migrations" / f"{NEXT}.py").write_text(EXPAND)
    return directory


def test_an_upgrade_and_a_rollback_fail_and_lose_nothing(
    shared_cluster: Cluster, own_database: str, balancer: Balancer, next_release: Path
) -> None:
    uri = shared_cluster.uri(own_database)
    visitors = [Visitor(number) for number in range(CLIENTS)]
    instances: dict[str, Service] = {}

    def sent() -> int:
        return sum(visitor.sent for visitor in visitors)

    def go_on() -> None:
        end = sent() + MEANWHILE
        eventually(lambda: sent() > end, within=60)

    def start(name: str, release: Path) -> None:
        instances[name] = Service(SERVE, release, DB_URI=uri).wait_until()
        balancer.add(name, instances[name])

    def replace(name: str, release: Path) -> None:
        balancer.drop(name)  # not ready: it gets nothing new
        go_on()  # the time that preStop gives
        assert instances[name].stop() == 0
        start(name, release)
        go_on()  # beside the other release

    try:
        for name in ("one", "two"):
            start(name, ROOT)
        began = time.monotonic()
        with load(balancer, CLIENTS, lambda client, number: visitors[number].visit(client)):
            go_on()
            assert migrate(uri, "--check", directory=next_release).stdout == (f"pending: {NEXT}\n")
            assert migrate(uri, directory=next_release).stdout == f"applied: {NEXT}\n"
            go_on()  # the old release, on the new schema
            replace("one", next_release)
            replace("two", next_release)
            replace("one", ROOT)  # a rollback begins: the schema stays as it is
        took = time.monotonic() - began
    finally:
        with ExitStack() as stack:
            for service in instances.values():
                stack.enter_context(service)
    again = sum(visitor.sent_again for visitor in visitors)
    failed = [failure for visitor in visitors for failure in visitor.failed]
    print(f"{sent()} requests, {sent() / took:.0f}/s, {again} sent again, {len(failed)} failed")
    assert failed == []

    stored = {name: born for visitor in visitors for name, born in visitor.stored.items()}
    assert len(stored) == CLIENTS * USERS
    rows = shared_cluster.query("SELECT username, date_of_birth::text FROM users", own_database)
    assert dict(rows) == stored
