"""What serves users in tests, with the limits that the service has if nobody sets them."""

from collections.abc import Sequence
from typing import Any

from hello.batching import Batcher, Lane
from hello.settings import Settings
from hello.users import Users

LIMITS: dict[str, Any] = {"max_waiting": Settings.max_waiting, "timeout": Settings.request_timeout}


def users_of(*lanes: Sequence[Lane[Any, Any]], **limits: Any) -> Users:
    """`lanes` are the readers, the writers and, if there is one, those over a cache."""
    return Users(*lanes, **LIMITS | limits)


def batcher_of(lanes: Sequence[Lane[Any, Any]], **limits: Any) -> Batcher[Any, Any]:
    return Batcher(lanes, **LIMITS | limits)
