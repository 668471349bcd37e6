"""Whatever changes a user outdates the cache: every way to write that the API describes."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from importlib.resources import files
from typing import Any

import pytest

from tests.support.service import Answer
from tests.support.stack import Stack

NAME = "alice"
SAFE = {"get", "head", "options", "trace", "parameters"}


def ways_to_write() -> Iterator[Any]:
    """Each method and path that may change a user, with each body of its examples."""
    document = json.loads(files("hello").joinpath("openapi.json").read_text())
    for template, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in SAFE:
                continue
            content = operation.get("requestBody", {}).get("content", {})
            examples = [
                example["value"]
                for media in content.values()
                for example in media.get("examples", {}).values()
            ]
            path = template.replace("{username}", NAME)
            for number, value in enumerate(examples or [None], 1):
                yield pytest.param(method.upper(), path, value, id=f"{method} {template} {number}")


def said(answer: Answer) -> tuple[int, dict]:
    """An answer without what differs from request to request."""
    return answer.status, {k: v for k, v in answer.json.items() if k != "request_id"}


@pytest.mark.parametrize(("method", "path", "value"), list(ways_to_write()))
def test_a_user_who_was_changed_is_not_shown_from_the_cache(
    stack: Stack, method: str, path: str, value: Any
) -> None:
    # A birthday that the example does not lead to.
    days = [str(date.today() - timedelta(days=n)) for n in (100, 200)]
    before = next(day for day in days if day[5:] not in json.dumps(value))
    without = {"CACHE_URI": ""}
    with (
        stack.service() as writer,
        stack.service() as reader,
        stack.service(**without) as truth,
        writer.client() as writing,
        reader.client() as reading,
        truth.client() as true,
    ):
        assert writing.put(NAME, before).status == 204
        for _ in range(2):  # the second one is a hit
            old = reading.get(NAME)
            assert old.status == 200
        body = None if value is None else json.dumps(value).encode()
        answer = writing.request(method, path, body, {"Content-Type": "application/json"})
        assert answer.status < 300
        expected = said(true.get(NAME))
        assert expected != said(old), "the example changes nothing: choose another"
        assert said(reading.get(NAME)) == expected


def test_there_is_something_to_try() -> None:
    assert len(list(ways_to_write())) >= 1
