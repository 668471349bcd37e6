"""Which engine is behind a URI of PostgreSQL's protocol, and what follows from it.

Nobody has to say which one it is: the engine is asked when a connection is opened (QUESTION), in a
message that is sent anyway, and the setting `DB_ENGINE` overrides what it answers. docs/scaling.md
says of each engine what was tried.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine, and what depends on it. The defaults are those of PostgreSQL."""

    #: As the setting `DB_ENGINE` has it.
    name: str
    #: Whether a plan is made once and kept, which is the cheapest. Citus can make none before it
    #: knows the names, since they say which shards are asked.
    keeps_plans: bool = True
    #: Whether an upsert may look at the clock and at other rows for each row that it changes. Where
    #: not, it does so once, at its beginning: see `hello.database.statements`.
    looks_at_each_row: bool = True
    #: Whether any connection can see, and end, the process of another: where not, the service waits
    #: until a statement that may still arrive is too late.
    ends_processes: bool = True
    #: Whether its log has a lineage, by which an old primary is known from a new one.
    has_lineage: bool = True
    #: Whether a fence can be asked for: positions of its log say how far a replica is.
    has_fence: bool = True
    #: Whether an advisory lock keeps other migrations out. Where not, a row of a table does.
    has_advisory_locks: bool = True
    #: Whether a migration can change the schema and the rows in one transaction.
    has_transactional_ddl: bool = True
    #: Whether a column can have the collation "C", and a table a fillfactor.
    has_collations: bool = True
    has_fillfactor: bool = True
    #: Whether it spreads tables over its nodes when it is told to, as Citus does.
    spreads_tables: bool = False

    def __str__(self) -> str:
        return self.name


POSTGRESQL = Engine(name="postgresql")

#: Its readers share the writer's storage and replay no log of their own.
AURORA = Engine(name="aurora", has_lineage=False, has_fence=False)

#: The log of the coordinator says nothing of the rows, which are on other nodes.
CITUS = Engine(
    name="citus",
    keeps_plans=False,
    looks_at_each_row=False,
    has_fence=False,
    spreads_tables=True,
)

YUGABYTEDB = Engine(
    name="yugabytedb",
    ends_processes=False,
    has_lineage=False,
    has_fence=False,
    has_advisory_locks=False,
    has_transactional_ddl=False,
    has_fillfactor=False,
)

COCKROACHDB = Engine(
    name="cockroachdb",
    looks_at_each_row=False,
    ends_processes=False,
    has_lineage=False,
    has_fence=False,
    has_advisory_locks=False,
    has_transactional_ddl=False,
    has_collations=False,
    has_fillfactor=False,
)

ENGINES = {engine.name: engine for engine in (POSTGRESQL, AURORA, CITUS, YUGABYTEDB, COCKROACHDB)}

#: Columns of a SELECT that every engine answers; `identify` takes them. A look into the table of
#: extensions would cost more.
QUESTION = """
    version(),
    to_regprocedure('citus_version()') IS NOT NULL,
    to_regprocedure('aurora_version()') IS NOT NULL
"""


def identify(version: str, has_citus: bool, is_aurora: bool) -> Engine:
    """The engine that answered QUESTION; PostgreSQL if it is none that is known."""
    if has_citus:
        return CITUS
    if is_aurora:
        return AURORA
    if "CockroachDB" in version:
        return COCKROACHDB
    return YUGABYTEDB if "-YB-" in version else POSTGRESQL


# What a pooler gives.

SELECT_PROCESS = "SELECT pg_backend_pid()"

POOLER_SHARES_SESSIONS = (
    "the pooler at {} gives a connection another session for each transaction:"
    " let it keep one (pool_mode = session)"
)


#: How often a pooler is tried: while others use it, once may not show what it does.
_TRIALS = 8


def shares_sessions(ask: Callable[[], int], ask_another: Callable[[], int]) -> bool:
    """Whether a pooler is seen to share the sessions of the server among its connections.

    Both ask for the process of the server (SELECT_PROCESS), each on one connection that stays open,
    outside a transaction. A connection that has a session of its own always sees the same process,
    which no other connection sees.
    """
    own, others = {ask()}, {ask_another()}
    for _ in range(_TRIALS):
        if len(own) > 1 or own & others:
            return True
        others.add(ask_another())
        own.add(ask())
    return False
