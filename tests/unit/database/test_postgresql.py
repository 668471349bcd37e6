"""What is sent to PostgreSQL, and when: a connection that only notes it."""

import re
import socket
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest
from psycopg2 import OperationalError, errors

from hello.database import postgresql as module
from hello.database import statements
from hello.database.engine import CITUS, COCKROACHDB, POSTGRESQL, Engine
from hello.database.postgresql import Newest, PostgreSQL, PostgreSQLConnection
from hello.errors import ConnectionBroken, DatabaseUnavailable, OutcomeUnknown, Unfit

BORN = date(1990, 5, 17)

#: What PostgreSQL answers to `hello.database.engine.QUESTION`, and which process answers.
ENGINE = ("PostgreSQL 18.6 on x86_64-pc-linux-gnu", False, False)
PROCESS = 1


class Notes:
    """psycopg2's connection and cursor in one."""

    description = True

    def __init__(self) -> None:
        self.deadline = 0.0
        self.sent: list[Any] = []
        self.texts: list[str] = []
        self.answer: Any = []
        self.notices: list[str] = []

    def cursor(self) -> "Notes":
        return self

    def execute(self, sql: str, parameters: Any) -> None:
        self.sent.append(parameters)
        self.texts.append(sql)
        if isinstance(self.answer, Exception):
            raise self.answer

    def fetchall(self) -> Any:
        return self.answer

    def get_backend_pid(self) -> int:
        return PROCESS


@pytest.fixture
def notes() -> Notes:
    return Notes()


def connect(
    notes: Notes, engine: Engine | None = None, process: int = PROCESS
) -> PostgreSQLConnection:
    """A connection to a server whose clock says what ours does."""
    connection: Any = PostgreSQLConnection(notes, 2.0, Newest(), engine)  # type: ignore[arg-type]
    clock = datetime.fromtimestamp(time.time(), UTC)
    notes.answer = [(False, process, clock, clock, *ENGINE)]
    connection.configure(time.monotonic() + 5)
    notes.sent.clear()
    notes.texts.clear()
    notes.answer = []
    return connection


@pytest.fixture
def connection(notes: Notes) -> PostgreSQLConnection:
    return connect(notes)


def test_what_nobody_waits_for_any_more_is_not_sent(
    connection: PostgreSQLConnection, notes: Notes
) -> None:
    with pytest.raises(DatabaseUnavailable, match="no time was left"):
        connection.save({"alice": BORN}, time.monotonic())
    assert notes.sent == []


@pytest.mark.parametrize(("left", "waits"), [(5.0, 2.0), (0.5, 0.5)])
def test_the_server_is_to_end_before_its_client(
    connection: PostgreSQLConnection, notes: Notes, left: float, waits: float
) -> None:
    before, clock = time.monotonic(), time.time()
    connection.save({"alice": BORN}, before + left)
    assert notes.deadline - before == pytest.approx(waits, abs=0.1)
    [(names, born, expires)] = notes.sent
    assert (names, born) == ('{"alice"}', '{"1990-05-17"}')
    assert expires.timestamp() - clock == pytest.approx(0.9 * waits, abs=0.04)


@pytest.mark.parametrize("engine", [POSTGRESQL, CITUS], ids=str)
def test_a_statement_is_sent_the_parameters_that_it_has(notes: Notes, engine: Engine) -> None:
    connection, end = connect(notes, engine), time.monotonic() + 5
    connection.find(["alice"], end)
    connection.save({"alice": BORN}, end)
    connection.forget(["alice"], end)
    forms = statements.of(engine)._asdict()
    for name in ("find", "save", "forget"):
        [at] = [n for n, sql in enumerate(notes.texts) if sql.startswith(f"EXECUTE {name}(")]
        has = len(set(re.findall(r"\$[0-9]+", forms[name])))
        assert (notes.texts[at].count("%s"), len(notes.sent[at])) == (has, has), name


def test_what_came_too_late_was_not_done_and_may_be_done_again(
    connection: PostgreSQLConnection, notes: Notes
) -> None:
    notes.answer = errors.DivisionByZero()
    with pytest.raises(ConnectionBroken, match="too late"):
        connection.save({"alice": BORN}, time.monotonic() + 5)


def test_a_session_that_broke_without_a_word_may_still_bring_its_statement(
    connection: PostgreSQLConnection, notes: Notes
) -> None:
    notes.answer = OperationalError("server closed the connection unexpectedly")
    before = time.monotonic()
    with pytest.raises(OutcomeUnknown) as caught:
        connection.save({"alice": BORN}, before + 5)
    # As long as the server is told that it may save.
    assert caught.value.until - before == pytest.approx(1.8, abs=0.1)


def test_a_process_that_cannot_be_found_is_never_known_to_be_gone(notes: Notes) -> None:
    connection = connect(notes, COCKROACHDB)
    notes.answer = OperationalError("server closed the connection unexpectedly")
    with pytest.raises(OutcomeUnknown) as raised:
        connection.save({"alice": BORN}, time.monotonic() + 5)
    notes.answer = []
    assert not raised.value.is_over(connection, time.monotonic() + 5)


def test_a_statement_that_looks_at_the_clock_once_may_wait_for_rows_after_that(
    notes: Notes,
) -> None:
    connection = connect(notes, CITUS)
    notes.answer = OperationalError("server closed the connection unexpectedly")
    before = time.monotonic()
    with pytest.raises(OutcomeUnknown) as raised:
        connection.save({"alice": BORN}, before + 5)
    # It may come at the end of its time, and may take as long as any statement then.
    assert raised.value.until - before == pytest.approx(2 * 0.9 * 2.0, abs=0.1)


@pytest.mark.parametrize(
    "error", [errors.DuplicatePreparedStatement, errors.InvalidSqlStatementName]
)
def test_a_pooler_that_is_not_caught_at_once_is_caught_by_what_is_prepared(
    notes: Notes, error: type[Exception]
) -> None:
    connection = connect(notes)
    notes.answer = error()
    with pytest.raises(ConnectionBroken):
        connection.find(["alice"], time.monotonic() + 5)
    # A pooler has numbers of its own for its processes.
    connection = connect(notes, process=PROCESS + 1)
    notes.answer = error()
    with pytest.raises(Unfit, match="session"):
        connection.find(["alice"], time.monotonic() + 5)


@pytest.mark.parametrize(
    ("notice", "counts"),
    [
        ("WARNING:  canceling wait for synchronous replication due to user request\n", True),
        ("WARNING:  database must be vacuumed within 1000000 transactions\n", False),
        ("FATAL:  terminating connection due to administrator command\n", False),
    ],
)
def test_what_the_server_says_of_a_commit_counts(
    connection: PostgreSQLConnection, notes: Notes, notice: str, counts: bool
) -> None:
    notes.answer = [("alice", 1)]
    notes.notices = Said(notice)
    if counts:
        with pytest.raises(DatabaseUnavailable, match="warned of a commit"):
            connection.save({"alice": BORN}, time.monotonic() + 5)
    else:
        assert connection.save({"alice": BORN}, time.monotonic() + 5) == {"alice": 1}


class Said(list[str]):
    """Notices that come with the next answer."""

    def __init__(self, notice: str) -> None:
        super().__init__()
        self._notice = notice

    def clear(self) -> None:
        self.append(self._notice)


def test_a_cache_whose_row_is_lost_may_not_be_used(connection: PostgreSQLConnection) -> None:
    with pytest.raises(DatabaseUnavailable, match="lost its row"):
        connection.cache_standing(time.monotonic() + 5)


@pytest.mark.parametrize(("rows", "gone"), [([], True), ([(True,)], False)])
def test_a_session_is_over_when_its_server_has_no_process_of_it(
    connection: PostgreSQLConnection, notes: Notes, rows: list[Any], gone: bool
) -> None:
    notes.answer = OperationalError("server closed the connection unexpectedly")
    with pytest.raises(OutcomeUnknown) as caught:
        connection.save({"alice": BORN}, time.monotonic() + 5)
    notes.answer = rows
    assert caught.value.is_over(connection, time.monotonic() + 5) is gone
    assert notes.sent[-1]["pid"] == 1


class Server(Notes):
    """A primary that shows its history, and accepts every connection."""

    def __init__(self, system: int, timeline: int) -> None:
        super().__init__()
        self.closed = 0
        #: What happens while a statement runs.
        self.meanwhile: Callable[[], object] = lambda: None
        self._history = (system, timeline, f"{timeline:08X}0000000000000001")

    def execute(self, sql: str, parameters: Any) -> None:
        super().execute(sql, parameters)
        now = datetime.now(UTC)
        if "pg_backend_pid" in sql:
            self.answer = [(True, PROCESS, now, now, *ENGINE)]
        elif "pg_control_system" in sql:
            self.answer = [self._history]
        else:
            self.answer = [("0/10", self._history[2])]
            self.meanwhile()

    def opened(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


class Hosts:
    """A database whose name leads to the server that a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = Server(7, 1)
        monkeypatch.setattr(module, "_GreenConnection", lambda dsn, deadline: self.server)
        self._database = PostgreSQL(
            lambda: "postgresql:///hello?host=/nowhere", connect_timeout=1, statement_timeout=2
        )

    def connect(self, server: Server) -> PostgreSQLConnection:
        self.server = server
        return self._database.connect(time.monotonic() + 5)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(monkeypatch)


def test_no_session_is_opened_with_a_primary_after_a_newer_one_was_met(hosts: Hosts) -> None:
    hosts.connect(Server(7, 2))
    old = Server(7, 1)
    with pytest.raises(DatabaseUnavailable, match="a newer primary has taken over"):
        hosts.connect(old)
    assert old.closed == 1
    hosts.connect(Server(7, 2))
    # Of another system, as after a restore, a lower number says nothing.
    hosts.connect(Server(8, 1))


def test_nothing_more_is_asked_of_a_primary_when_a_newer_one_was_met(hosts: Hosts) -> None:
    old = Server(7, 1)
    connection = hosts.connect(old)
    asked = len(old.sent)
    assert connection.flushed(time.monotonic() + 5).lineage == (7, 1)
    hosts.connect(Server(7, 2))
    with pytest.raises(ConnectionBroken, match="a newer primary has taken over"):
        connection.flushed(time.monotonic() + 5)
    assert len(old.sent) == asked + 1


def test_an_answer_is_not_believed_if_a_newer_primary_was_met_meanwhile(hosts: Hosts) -> None:
    old = Server(7, 1)
    connection = hosts.connect(old)
    old.meanwhile = lambda: hosts.connect(Server(7, 2))
    with pytest.raises(ConnectionBroken, match="a newer primary has taken over"):
        connection.flushed(time.monotonic() + 5)


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = PostgreSQL(
            lambda: f"postgresql://127.0.0.1:{silent.getsockname()[1]}/hello",
            connect_timeout=0.05,
            statement_timeout=2,
        )
        with pytest.raises(DatabaseUnavailable, match="did not accept a connection in time"):
            database.connect(time.monotonic() + 5)
