import re
from collections.abc import Callable
from datetime import date, tzinfo

import falcon
import msgspec

from hello import problems, time_zones
from hello.birthdays import days_until_birthday
from hello.body import read_body
from hello.telemetry import metrics
from hello.usernames import UsernameError, Usernames
from hello.users import Users

#: Says which day it is in a time zone.
Clock = Callable[[tzinfo], date]


class DateOfBirth(msgspec.Struct):
    """The body of a PUT."""

    dateOfBirth: str


_decode = msgspec.json.Decoder(DateOfBirth).decode
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Hello:
    """`/hello/{username}`: PUT a date of birth, GET the days until the birthday.

    `time_zone` is where "today" is, unless a request names a zone by `?tz=`.
    """

    def __init__(self, users: Users, usernames: Usernames, time_zone: tzinfo, clock: Clock) -> None:
        self._users = users
        self._usernames = usernames
        self._zone = time_zone
        self._clock = clock

    def on_get(self, req: falcon.Request, resp: falcon.Response, username: str) -> None:
        name = self._parse_username(username)
        today = self._today(req)
        user = self._users.find(name)
        if user.stale:
            metrics.STALE_ANSWERS.inc()
            # RFC 7234, section 5.5; obsolete for caches, and understood by people.
            resp.set_header("Warning", '110 - "Response is Stale"')
        if user.date_of_birth is None:
            raise problems.UserNotFound("There is no entry for this username.")
        days = days_until_birthday(user.date_of_birth, today)
        message = f"Your birthday is in {days} day(s)" if days else "Happy birthday!"
        resp.data = b'{"message": %s}' % msgspec.json.encode(f"Hello, {name}! {message}")

    on_head = on_get

    def on_put(self, req: falcon.Request, resp: falcon.Response, username: str) -> None:
        name = self._parse_username(username)
        self._users.save(name, self._parse_date(read_body(req), self._today(req)))
        resp.status = falcon.HTTP_204

    def _parse_username(self, raw: str) -> str:
        try:
            return self._usernames.parse(raw)
        except UsernameError as ex:
            raise problems.InvalidUsername(str(ex)) from ex

    def _today(self, req: falcon.Request) -> date:
        if not req.query_string:
            return self._clock(self._zone)
        name = req.get_param("tz")
        if name is None:
            return self._clock(self._zone)
        try:
            zone = time_zones.parse(name)
        except ValueError as ex:
            raise problems.UnknownTimeZone(
                "tz must name a zone of the IANA time zone database, as Asia/Tokyo."
            ) from ex
        return self._clock(zone)

    def _parse_date(self, body: bytes, today: date) -> date:
        if not body:
            raise problems.InvalidBody("The body is empty.")
        try:
            text = _decode(body.decode("utf-8")).dateOfBirth
        except UnicodeDecodeError as ex:
            raise problems.InvalidBody("The body is not UTF-8.") from ex
        except RecursionError as ex:
            raise problems.InvalidBody("The JSON is nested too deeply.") from ex
        except msgspec.DecodeError as ex:
            raise problems.InvalidBody(
                f'The body must be JSON like {{"dateOfBirth": "1990-05-17"}}. {ex}.'
            ) from ex
        # date.fromisoformat also takes 19900517 and 1990-W20-4.
        if not _DATE.fullmatch(text):
            raise problems.InvalidDate("dateOfBirth must be written YYYY-MM-DD.")
        try:
            born = date.fromisoformat(text)
        except ValueError as ex:
            raise problems.InvalidDate("dateOfBirth is not a date of the calendar.") from ex
        if born > today:
            raise problems.InvalidDate("dateOfBirth is later than today.")
        return born
