import re

import pytest

from hello.telemetry.names import request_id, trace_ids

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (f"00-{TRACE}-{SPAN}-01", (TRACE, SPAN)),
        (f"00-{TRACE}-{SPAN}-00", (TRACE, SPAN)),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be", (TRACE, SPAN)),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        ("Rumpelstilz", None),
        ("", None),
    ],
)
def test_ids_of_a_caller(text: str, ids: tuple[str, str] | None) -> None:
    assert trace_ids({"HTTP_TRACEPARENT": text}) == ids


def test_own_ids_come_first() -> None:
    environ = {"HTTP_TRACEPARENT": f"00-{TRACE}-{SPAN}-01"}
    assert trace_ids(environ | {"hello.trace": ("a", "b")}) == ("a", "b")
    assert trace_ids({}) is None


@pytest.mark.parametrize("given", ["abc-1:2._", "x" * 128])
def test_a_caller_may_choose_the_id_of_a_request(given: str) -> None:
    assert request_id({"HTTP_X_REQUEST_ID": given}) == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", 'a"', "a\n", "é"])
def test_a_request_without_a_sane_id_gets_one_that_it_keeps(given: str) -> None:
    environ = {"HTTP_X_REQUEST_ID": given}
    made = request_id(environ)
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert request_id(environ) == made
    assert request_id({}) != made
