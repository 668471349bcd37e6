"""The service on a real PostgreSQL."""

from tests.system.postgres import Cluster
from tests.system.service import Service


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
