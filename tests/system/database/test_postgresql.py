"""The service on a real PostgreSQL: what it stores, and every way to address a server."""

import shutil
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port
from tests.support.proxy import BLACKHOLE, REFUSE, Proxy
from tests.support.service import LANES, PATIENT, Client, Crowd, Service, get, load, migrate, put

OLD_PASSWORD, PASSWORD = "f1rst:@%", "p@ss:/w%rd"


def _works(uri: str, **settings: str) -> None:
    """Start the service on a database with the current schema, and use it."""
    with (
        Service(DB_URI=uri, **settings).wait_until() as service,
        service.client() as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        assert client.get("alice").status == 200


def test_put_and_get(shared_cluster: Cluster, database: str) -> None:
    with Service(DB_URI=shared_cluster.uri(database)).wait_until() as service:
        with service.client() as client:
            assert client.get("alice").status == 404
            assert client.put("alice", "1990-05-17").status == 204
            answer = client.get("alice")
            assert answer.status == 200
            assert answer.json["message"].startswith("Hello, alice! ")
        assert shared_cluster.query(
            "SELECT username, date_of_birth::text, version FROM users", database
        ) == [("alice", "1990-05-17", 1)]
        assert service.stop() == 0


def test_usernames_of_any_script_and_the_oldest_date(
    shared_cluster: Cluster, database: str
) -> None:
    # The last one is decomposed, and stored composed.
    names = ["Alice", "alice", "Жанна", "बिन्दु", "小林", "𠮷野", "ß" * 64, "Jose\u0301"]
    with Service(DB_URI=shared_cluster.uri(database)).wait_until() as service:
        with Crowd(service, len(names)) as crowd:
            puts = crowd.ask([put(name, f"0001-01-{day:02}") for day, name in enumerate(names, 1)])
            gets = crowd.ask([get(name) for name in names])
        assert [answer.status for answer in puts] == [204] * len(names)
        expected = [*names[:-1], "Jos\u00e9"]
        for name, answer in zip(expected, gets, strict=True):
            assert answer.json["message"].startswith(f"Hello, {name}! ")
        rows = shared_cluster.query(
            "SELECT username, date_of_birth::text FROM users ORDER BY date_of_birth", database
        )
    assert rows == [(name, f"0001-01-{day:02}") for day, name in enumerate(expected, 1)]


def test_signs_that_mean_something_in_an_array_are_letters_like_others(
    shared_cluster: Cluster, database: str
) -> None:
    names = ['"', "\\", '\\"', ",", "{}", "{a,b}", "NULL", " a ", "it's", "%s", '","', "a\nb"]
    uri = shared_cluster.uri(database)
    with Service(DB_URI=uri, USERNAME_PATTERN="(?s).*").wait_until() as service:
        with Crowd(service, len(names)) as crowd:
            puts = crowd.ask([put(name, f"0001-01-{day:02}") for day, name in enumerate(names, 1)])
            gets = crowd.ask([get(name) for name in names])
        assert [answer.status for answer in puts] == [204] * len(names)
        for name, answer in zip(names, gets, strict=True):
            assert answer.json["message"].startswith(f"Hello, {name}! ")
        rows = shared_cluster.query("SELECT username FROM users ORDER BY date_of_birth", database)
    assert rows == [(name,) for name in names]


def test_percent_encoded_password(shared_cluster: Cluster, database: str) -> None:
    role = shared_cluster.create_role(PASSWORD, database)
    uri = shared_cluster.uri(database, role=role, password=PASSWORD)
    assert "p%40ss%3A%2Fw%25rd@" in uri
    _works(uri)


def test_wrong_password_is_unavailable_and_tells_nothing(
    shared_cluster: Cluster, database: str
) -> None:
    role = shared_cluster.create_role(PASSWORD, database)
    uri = shared_cluster.uri(database, role=role, password="wr@ng-s%cret")
    with Service(DB_URI=uri).wait_until(status=503) as service:
        with service.client() as client:
            answers = [
                client.put("alice", "1990-05-17"),
                client.get("alice"),
                client.request("GET", "/health"),
                client.request("GET", "/health/ready"),
            ]
        assert [answer.status for answer in answers] == [503] * 4
        # For operators the log gives the server's reason; a client is told less.
        assert "password authentication failed" in service.log
        for text in ("wr@ng", quote("wr@ng-s%cret", safe=""), "postgresql://"):
            assert text not in service.log
        for answer in answers:
            for text in ("wr@ng", "wr%40ng", role, str(shared_cluster.port)):
                assert text not in answer.body.decode()


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_sslmode_without_tls(shared_cluster: Cluster, database: str, mode: str) -> None:
    _works(f"{shared_cluster.uri(database)}?sslmode={mode}")


def test_sslmode_require_is_not_weakened(shared_cluster: Cluster, database: str) -> None:
    uri = f"{shared_cluster.uri(database)}?sslmode=require"
    with Service(DB_URI=uri).wait_until(status=503) as service:
        assert "SSL" in service.log
    assert shared_cluster.sessions(database) == []


def test_scheme_postgres(shared_cluster: Cluster, database: str) -> None:
    uri = shared_cluster.uri(database).replace("postgresql://", "postgres://")
    assert migrate(uri, "--check").returncode == 0
    _works(uri)


def test_unix_socket(shared_cluster: Cluster, database: str) -> None:
    directory = quote(str(shared_cluster.directory), safe="")
    uri = f"postgresql://postgres@{directory}:{shared_cluster.port}/{database}"
    assert migrate(uri, "--check").returncode == 0
    _works(uri)


def test_options_reach_the_server(shared_cluster: Cluster, empty_database: str) -> None:
    shared_cluster.query("CREATE SCHEMA birthdays", empty_database)
    uri = f"{shared_cluster.uri(empty_database)}?options=-c%20search_path%3Dbirthdays"
    assert migrate(uri).returncode == 0
    assert migrate(uri, "--check").returncode == 0
    assert migrate(uri).stdout == "nothing to do\n"
    _works(uri)
    assert shared_cluster.query("SELECT username FROM birthdays.users", empty_database) == [
        ("alice",)
    ]


def test_statement_timeout_of_the_uri_is_overruled(shared_cluster: Cluster, database: str) -> None:
    # Without one, a statement that nobody waits for any more would go on.
    uri = f"{shared_cluster.uri(database)}?options=-c%20statement_timeout%3D0"
    with (
        Service(DB_URI=uri, STATEMENT_TIMEOUT="0.3").wait_until() as service,
        service.client() as client,
        shared_cluster.locked(database),
    ):
        assert client.get("alice").status == 503
        eventually(lambda: ("active", "relation") not in shared_cluster.sessions(database))


@pytest.mark.parametrize("first", ["closed", REFUSE, BLACKHOLE])
def test_first_host_is_away(
    shared_cluster: Cluster, database: str, proxy: Proxy, first: str
) -> None:
    port = proxy.port
    if first == "closed":
        port = free_port()
    else:
        proxy.mode = first
    _works(f"postgresql://postgres@127.0.0.1:{port},127.0.0.1:{shared_cluster.port}/{database}")


def test_host_without_an_address(shared_cluster: Cluster, database: str) -> None:
    # No resolver is asked about a label of more than 63 characters.
    nowhere = "a" * 64
    with Service(DB_URI=f"postgresql://{nowhere}/hello").wait_until(status=503) as service:
        assert "resolve" in service.log
        assert "Traceback" not in service.log
    _works(f"postgresql://postgres@{nowhere},127.0.0.1:{shared_cluster.port}/{database}")


def test_a_host_and_a_port_that_only_the_environment_names(
    shared_cluster: Cluster, database: str
) -> None:
    host, port = "127.0.0.1", str(shared_cluster.port)
    uri = f"postgresql://postgres@/{database}"
    assert migrate(uri, "--check", PGHOST=host, PGPORT=port).returncode == 0
    _works(uri, PGHOST=host, PGPORT=port)


def test_failover_to_a_standby(cluster: Cluster) -> None:
    assert migrate(cluster.uri()).returncode == 0
    standby = Cluster().create_standby(cluster).start()
    try:
        # The standby comes first: it accepts connections, but no writes.
        hosts = f"127.0.0.1:{standby.port},127.0.0.1:{cluster.port}"
        uri = f"postgresql://postgres@{hosts}/postgres"
        assert migrate(uri, "--check").returncode == 0
        with Service(DB_URI=uri).wait_until() as service, service.client() as client:
            workers = service.workers
            assert client.put("alice", "1990-05-17").status == 204
            assert client.get("alice").status == 200
            eventually(lambda: standby.query("SELECT 1 FROM users"))

            cluster.kill()
            assert client.put("alice", "1990-05-18").status == 503
            standby.promote()
            service.wait_until("/health")
            assert client.put("alice", "1990-05-19").status == 204
            assert service.workers == workers
        assert standby.query("SELECT date_of_birth::text FROM users") == [("1990-05-19",)]
    finally:
        standby.destroy()


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def encoded_database(shared_cluster: Cluster, encoding: str, empty_database: str) -> str:
    """The name of a migrated database in another encoding than UTF-8."""
    name = f"{empty_database}_{encoding}".lower()
    shared_cluster.query(f"CREATE DATABASE {name} ENCODING {encoding} TEMPLATE template0")
    assert migrate(shared_cluster.uri(name)).returncode == 0
    return name


def test_username_that_the_encoding_cannot_store(
    shared_cluster: Cluster, encoding: str, encoded_database: str
) -> None:
    # SQL_ASCII stores bytes, and counts them: 64 characters are too many.
    bad = {"LATIN1": "Жанна", "SQL_ASCII": "é" * 64}[encoding]
    names = ["first", "alice", "josé", bad, "zoe"]
    with (
        Service(DB_URI=shared_cluster.uri(encoded_database), **PATIENT).wait_until() as service,
        Crowd(service, len(names)) as crowd,
    ):
        with shared_cluster.locked(encoded_database):
            # All but the first wait together, and are saved by one statement.
            crowd.send([put(name, "1990-05-17") for name in names])
            crowd.settle()
        answers = dict(zip(names, crowd.receive(), strict=True))
        assert answers[bad].status == 400
        assert answers[bad].json["type"] == "/docs#problem-not-storable"
        assert {name for name in names if answers[name].status == 204} == set(names) - {bad}

        with shared_cluster.locked(encoded_database):
            crowd.send([get(name) for name in names])
            crowd.settle()
        answers = dict(zip(names, crowd.receive(), strict=True))
        assert answers[bad].status in (400, 404)
        for name in set(names) - {bad}:
            assert answers[name].json["message"].startswith(f"Hello, {name}! ")
        assert service.log.count("defect") == 0


# A mounted Secret.


class Secret:
    """A directory with the file DB_URI, as the kubelet mounts a Secret and changes it: the new
    files are in place at a stroke, and then the old ones go."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._versions = count(1)
        self._version: Path | None = None
        (directory / "DB_URI").symlink_to("..data/DB_URI")

    def publish(self, content: bytes | str | None) -> None:
        version = self.directory / f"..version_{next(self._versions)}"
        version.mkdir()
        if content is not None:
            content = content if isinstance(content, bytes) else f"{content}\n".encode()
            (version / "DB_URI").write_bytes(content)
        link = self.directory / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self.directory / "..data")
        if self._version is not None:
            shutil.rmtree(self._version)
        self._version = version


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    return Secret(tmp_path)


def test_a_rotated_password_fails_no_request(
    shared_cluster: Cluster, database: str, secret: Secret
) -> None:
    old = shared_cluster.create_role(OLD_PASSWORD, database)
    new = shared_cluster.create_role(PASSWORD, database)
    secret.publish(shared_cluster.uri(database, role=old, password=OLD_PASSWORD))
    statuses: set[int] = set()

    def request(client: Client, number: int) -> None:
        name = f"user-{number // 2}"
        answer = client.get(name) if number % 2 else client.put(name, "1990-05-17")
        statuses.add(answer.status)

    def roles() -> list[str]:
        return list(shared_cluster.lanes(database).values())

    settings = PATIENT | {"SECRETS_DIR": str(secret.directory)}
    with Service(**settings).wait_until() as service:
        workers = service.workers
        with load(service, 16, request) as running:
            eventually(lambda: roles() == [old] * LANES)
            secret.publish(shared_cluster.uri(database, role=new, password=PASSWORD))
            running.go_on()
            # Nothing is interrupted: what is open goes on with the old credentials,
            assert roles() == [old] * LANES
            # and what connects anew, while both are good, takes the new ones.
            shared_cluster.terminate_sessions(database, at_most=1)
            eventually(lambda: sorted(roles()) == sorted([old, old, new]))
            running.go_on()
            shared_cluster.query(f"ALTER ROLE {old} NOLOGIN")
            assert shared_cluster.terminate_sessions(database, role=old) == LANES - 1
            eventually(lambda: roles() == [new] * LANES)
            running.go_on()
        assert service.workers == workers
        for password in (PASSWORD, OLD_PASSWORD):
            assert password not in service.log
    assert statuses <= {200, 204, 404}


@pytest.mark.parametrize(
    "broken",
    ["postgresql://[s3cret", "mysql://s3cret@host/hello", b"postgresql://\xff-s3cret", None],
    ids=["malformed", "unknown", "not UTF-8", "removed"],
)
def test_a_secret_that_is_broken_is_named_and_may_be_mended(
    shared_cluster: Cluster, database: str, secret: Secret, broken: bytes | str | None
) -> None:
    uri = shared_cluster.uri(database)
    secret.publish(uri)
    with (
        Service(SECRETS_DIR=str(secret.directory)).wait_until() as service,
        service.client() as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        secret.publish(broken)
        # Connections that are open go on.
        assert client.get("alice").status == 200

        shared_cluster.terminate_sessions(database)
        for answer in (client.get("alice"), client.put("alice", "1990-05-17")):
            assert answer.status == 503
            assert "s3cret" not in answer.body.decode()
        assert "DB_URI" in service.log
        assert "s3cret" not in service.log

        secret.publish(uri)
        assert client.get("alice").status == 200
        assert client.put("alice", "1990-05-17").status == 204
