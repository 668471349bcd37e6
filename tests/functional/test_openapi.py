"""The description of the API and the service agree, in both directions.

tests/system/operations/test_openapi.py asks the running service at random; this is about what
chance does not find.
"""

import io
import runpy
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import falcon.inspect
import jsonschema
import msgspec
import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

import hello
from hello import problems
from hello.app import create_app
from hello.database.models import Record
from hello.errors import Overloaded
from hello.lifecycle import Process
from hello.resources.hello import DateOfBirth
from tests.support.client import Client, assert_problem
from tests.support.users import users_of

ROOT = Path(__file__).parents[2]
YAML = (ROOT / "hello/openapi.yaml").read_text("utf-8")
DOCUMENT: dict[str, Any] = yaml.safe_load(YAML)
COMPONENTS = DOCUMENT["components"]
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
#: Those that HTTP derives from others: generators would make methods of them that nobody calls.
DERIVED = {"head", "options"}

#: What HTTP itself needs, and a description does not list.
PLUMBING = {"content-length", "content-type"}

MakeClient = Callable[[Exception], Client]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    _, _, kind, name = node["$ref"].split("/")
    return COMPONENTS[kind][name]


def responses() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Every answer that is described, by path, method and status."""
    return {
        (path, method.upper(), int(status)): resolve(response)
        for path, item in DOCUMENT["paths"].items()
        for method in METHODS
        if method in item
        for status, response in item[method]["responses"].items()
    }


def assert_valid(instance: Any, schema: dict[str, Any]) -> None:
    """What is described by a schema is valid, and has no member that is not described.

    Schemas of answers are open, for the sake of later versions; what this version sends is not.
    """
    closed = _closed(schema | {"components": COMPONENTS})
    jsonschema.Draft202012Validator(closed).validate(instance)


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(value) for name, value in node.items()}
    if isinstance(node.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_whoever_reads_answers_must_ignore_what_they_do_not_know() -> None:
    # RFC 9457, section 3.2, says so of problems; a closed schema makes generated clients fail.
    assert not list(_closing(DOCUMENT))


def _closing(node: Any) -> Iterator[Any]:
    """What would allow no member beyond those that are described."""
    if isinstance(node, dict):
        if node.get("additionalProperties") is False or isinstance(node.get("const"), dict):
            yield node
        for value in node.values():
            yield from _closing(value)
    elif isinstance(node, list):
        for value in node:
            yield from _closing(value)


def test_it_says_that_the_service_knows_no_callers() -> None:
    assert DOCUMENT["security"] == []


def test_it_has_the_version_of_the_package() -> None:
    assert DOCUMENT["info"]["version"] == hello.__version__


def test_the_json_was_made_of_the_yaml() -> None:
    made = runpy.run_path(str(ROOT / "scripts/openapi"))["convert"](YAML)
    assert (ROOT / "hello/openapi.json").read_text("utf-8") == made, "run `make openapi`"


def test_it_is_served_as_written(client: Client) -> None:
    response = client.ask("GET", "/openapi.yaml")
    assert response.headers["Content-Type"] == "application/yaml"
    assert response.body.decode() == YAML
    response = client.ask("GET", "/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    assert response.json == DOCUMENT


def test_the_routes_and_methods_are_those_of_the_app(client: Client) -> None:
    served = {
        (route.path, method.method)
        for route in falcon.inspect.inspect_routes(client.app)
        for method in route.methods
        # Falcon's own answer OPTIONS and 405.
        if not method.internal
    }
    described = {(path, method) for path, method, _ in responses()}
    assert described | {(path, "HEAD") for path, method in described if method == "GET"} == served
    assert not [path for path, item in DOCUMENT["paths"].items() if DERIVED & item.keys()]


def test_the_page_about_the_api_has_every_path() -> None:
    page = (ROOT / "docs/api.md").read_text("utf-8")
    paths = {path.replace("{username}", "<username>") for path in DOCUMENT["paths"]} - {ASSET}
    assert {path for path in paths if f" {path}`" not in page} == set()


def test_the_members_of_a_body_are_those_that_are_read() -> None:
    schema = COMPONENTS["schemas"]["DateOfBirth"]
    read = msgspec.structs.fields(DateOfBirth)
    assert set(schema["properties"]) == {field.encode_name for field in read}
    assert set(schema["required"]) == {field.encode_name for field in read if field.required}


def test_the_problems_are_those_of_the_service() -> None:
    def kinds(cls: type[problems.Problem]) -> Iterator[tuple[str, int]]:
        for sub in cls.__subclasses__():
            yield f"{problems.DESCRIBED_AT}{sub.slug}", sub.http_status
            yield from kinds(sub)

    statuses = dict(kinds(problems.Problem))
    assert COMPONENTS["schemas"]["Problem"]["properties"]["type"]["examples"] == [
        "about:blank",
        *statuses,
    ]
    examples = {
        (example["value"]["type"], status)
        for (_, _, status), response in responses().items()
        for media_type, media in response.get("content", {}).items()
        if media_type == problems.MEDIA_TYPE
        for example in media["examples"].values()
        if example["value"]["status"] == status
    }
    # A defect has no place among the answers that are promised.
    expected = {item for item in statuses.items() if item[1] != 500}
    assert examples == expected | {("about:blank", 404), ("about:blank", 405)}


def media_types() -> Iterator[dict[str, Any]]:
    """Every media type of a request and of a response."""
    for response in COMPONENTS["responses"].values():
        yield from response.get("content", {}).values()
    for item in DOCUMENT["paths"].values():
        if "put" in item:
            yield from item["put"]["requestBody"]["content"].values()


def test_the_examples_are_valid() -> None:
    count = 0
    for media in media_types():
        for example in media.get("examples", {}).values():
            assert_valid(example["value"], media["schema"])
            count += 1
    assert count > 15


BODY = b'{"dateOfBirth": "1990-05-17"}'


class SlowBody(io.BytesIO):
    """A stream that gives up, as the server's does."""

    def read(self, size: int | None = None) -> bytes:
        raise TimeoutError


def stale(batch: Iterable[str], deadline: float) -> dict[str, Record]:
    """What a replica says while the primary is away."""
    known = {"alice": Record(date(1990, 5, 17), 1, stale=True)}
    return {name: known.get(name, Record(None, 0, stale=True)) for name in batch}


@pytest.fixture
def client_of(client: Client, failing_client: MakeClient) -> Callable[[str], Client]:
    """The client of a service that is up, down, stale or draining."""
    client.put_user("alice", "1990-05-17")
    stopping = Process()
    stopping.draining = True
    clients = {
        "up": client,
        "down": failing_client(Overloaded("too many requests are waiting")),
        "stale": Client(create_app(users_of([stale], [stale]))),
        "draining": Client(create_app(users_of([stale], [stale]), process=stopping)),
    }
    return clients.__getitem__


USER = "/hello/{username}"
ASSET = "/docs/{asset}"

#: How to get every answer that is described: the answer, the state of the service, the
#: request.
REQUESTS: list[tuple[tuple[str, str, int], str, tuple[str, str], dict[str, Any]]] = [
    ((USER, "PUT", 204), "up", ("PUT", "/hello/alice"), {"body": BODY}),
    ((USER, "PUT", 400), "up", ("PUT", "/hello/alice"), {"body": b"{"}),
    ((USER, "PUT", 400), "up", ("PUT", "/hello/a%20b"), {"body": BODY}),
    ((USER, "PUT", 400), "up", ("PUT", "/hello/alice?tz=Nowhere"), {"body": BODY}),
    ((USER, "PUT", 404), "up", ("PUT", "/hello/a%2Fb"), {"body": BODY}),
    (
        (USER, "PUT", 408),
        "up",
        ("PUT", "/hello/alice"),
        {"body_file": SlowBody(), "content_length": 29},
    ),
    ((USER, "PUT", 413), "up", ("PUT", "/hello/alice"), {"body": b" " * 4097}),
    (
        (USER, "PUT", 415),
        "up",
        ("PUT", "/hello/alice"),
        {"body": BODY, "headers": {"Content-Encoding": "gzip"}},
    ),
    ((USER, "PUT", 503), "down", ("PUT", "/hello/alice"), {"body": BODY}),
    *(
        # HEAD is answered as GET, without the body.
        ((path, "GET", status), state, (method, url), {})
        for method in ("GET", "HEAD")
        for path, status, state, url in [
            (USER, 200, "up", "/hello/alice"),
            (USER, 200, "stale", "/hello/alice"),
            (USER, 400, "up", "/hello/a%20b"),
            (USER, 400, "up", "/hello/alice?tz=Nowhere"),
            (USER, 404, "up", "/hello/nobody"),
            (USER, 404, "up", "/hello/a%2Fb"),
            (USER, 404, "stale", "/hello/nobody"),
            (USER, 503, "down", "/hello/alice"),
            ("/", 200, "up", "/"),
            ("/health", 200, "up", "/health"),
            ("/health", 503, "down", "/health"),
            ("/health", 503, "draining", "/health"),
            ("/health/ready", 200, "up", "/health/ready"),
            ("/health/ready", 503, "down", "/health/ready"),
            ("/health/ready", 503, "draining", "/health/ready"),
            ("/health/live", 200, "up", "/health/live"),
            ("/health/startup", 200, "up", "/health/startup"),
            ("/openapi.yaml", 200, "up", "/openapi.yaml"),
            ("/openapi.json", 200, "up", "/openapi.json"),
            ("/docs", 200, "up", "/docs"),
            (ASSET, 200, "up", "/docs/page.css"),
            (ASSET, 200, "up", "/docs/page.js"),
            (ASSET, 200, "up", "/docs/icon.svg"),
            (ASSET, 404, "up", "/docs/nothing"),
        ]
    ),
    *(
        ((path, "GET", 405), "up", ("DELETE", path.replace("{", "").replace("}", "")), {})
        for path in DOCUMENT["paths"]
    ),
]


def test_every_answer_that_is_described_is_asked_for() -> None:
    assert {answer for answer, *_ in REQUESTS} == responses().keys()


@pytest.mark.parametrize(("answer", "state", "request_line", "options"), REQUESTS)
def test_answers_are_as_described(
    client_of: Callable[[str], Client],
    answer: tuple[str, str, int],
    state: str,
    request_line: tuple[str, str],
    options: dict[str, Any],
) -> None:
    response = client_of(state).ask(*request_line, **options)
    assert response.status_int == answer[2]
    described = responses()[answer]

    fields = {name.lower(): resolve(node) for name, node in described["headers"].items()}
    sent = {name.lower(): value for name, value in response.headers.items()}
    assert sent.keys() - PLUMBING <= fields.keys()
    assert {name for name, field in fields.items() if field.get("required")} <= sent.keys()
    for name in fields.keys() & sent.keys():
        value = int(sent[name]) if fields[name]["schema"].get("type") == "integer" else sent[name]
        assert_valid(value, fields[name]["schema"])
    assert ("warning" in sent) == (state == "stale" and "warning" in fields)

    if "content" not in described:
        assert response.body == b""
        return
    media_type = sent["content-type"].partition(";")[0]
    assert media_type in described["content"]
    if request_line[0] != "HEAD" and media_type.endswith("json"):
        assert_valid(response.json, described["content"][media_type]["schema"])


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_options_says_what_is_allowed(client: Client, path: str) -> None:
    response = client.ask("OPTIONS", path.replace("{", "").replace("}", ""))
    assert (response.status_int, response.body) == (200, b"")
    described = {name.upper() for name in DOCUMENT["paths"][path] if name in METHODS}
    allowed = set(response.headers["Allow"].split(", "))
    assert allowed == described | {"HEAD"}


@pytest.mark.parametrize("born", ["19900101", "1990-W01-1", "1990-1-1", "9999-12-31", "1990-02-30"])
def test_what_the_schema_says_of_dates_and_cannot_say(client: Client, born: str) -> None:
    """schemathesis cannot know which valid dates are refused; this is the other side."""
    schema = COMPONENTS["schemas"]["DateOfBirth"]
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
    response = client.put_user("alice", born)
    problem = assert_problem(response, 400, "invalid-date")
    # Only "not later than today" is beyond a schema.
    assert validator.is_valid({"dateOfBirth": born}) == (born == "9999-12-31")
    assert problem["detail"].startswith("dateOfBirth ")
