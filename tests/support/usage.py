"""What reads cost each server."""

from typing import NamedTuple

from tests.support.postgres import Cluster
from tests.support.stack import DATABASE, Stack


def batches(cluster: Cluster) -> int:
    """How many batches of reads a server has run since it started."""
    return _counted(cluster, "PREPARE find%")[0]


def _counted(cluster: Cluster, like: str) -> tuple[int, int]:
    """How often statements were run, and how many rows they returned."""
    sql = (
        "SELECT coalesce(sum(calls), 0)::int, coalesce(sum(rows), 0)::int"
        " FROM pg_stat_statements WHERE query LIKE %s"
    )
    return cluster.query(sql, DATABASE, (like,))[0]


class Usage(NamedTuple):
    """What reads have cost each server since it started."""

    primary_rows: int
    primary_batches: int
    fences: int
    replica_batches: int
    cache_hits: int

    @classmethod
    def of(cls, stack: Stack) -> "Usage":
        """All servers must be running."""
        batches, rows = _counted(stack.primary, "PREPARE find%")
        fences, _ = _counted(stack.primary, "%pg_current_wal_flush_lsn()%")
        replica_batches = sum(_counted(r, "PREPARE find%")[0] for r in stack.replicas)
        hits = 0
        for cache in stack.caches:
            with cache.client as client:
                hits = client.info("stats")["keyspace_hits"]
        return cls(rows, batches, fences, replica_batches, hits)

    def __sub__(self, before: "Usage") -> "Usage":
        return Usage(*(b - a for a, b in zip(before, self, strict=True)))
