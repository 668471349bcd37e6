from tests.support.client import Client


def test_root(client: Client) -> None:
    response = client.ask("GET", "/")
    assert response.status == "200 OK"
    assert response.content_type == "text/plain"
    assert response.body == b"Hello, world!"
