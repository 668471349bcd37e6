"""A check that schemathesis has not, loaded through SCHEMATHESIS_HOOKS."""

from typing import Any

import schemathesis
from schemathesis.checks import CheckContext

#: What HTTP itself needs, and a description does not list.
PLUMBING = {"connection", "content-length", "content-type", "date", "server"}


@schemathesis.check
def only_documented_headers(ctx: CheckContext, response: Any, case: Any) -> None:
    """An answer has no header field that the description does not name."""
    if case.method.upper() != case.operation.method.upper():
        return  # OPTIONS, and what is not allowed: no answer is described
    documented = case.operation.responses.find_by_status_code(response.status_code)
    if documented is not None:  # else status_code_conformance complains
        known = {name.lower() for name, _ in documented.headers.items()}
        surprising = {name.lower() for name in response.headers} - known - PLUMBING
        assert not surprising, f"header fields that are not documented: {surprising}"
