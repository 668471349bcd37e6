from datetime import date
from urllib.parse import quote

import pytest

from hello.app import create_app
from hello.usernames import Usernames
from tests.functional.conftest import StoredUsers
from tests.support.client import Client, assert_problem

BODY = b'{"dateOfBirth": "1990-05-17"}'
BORN = date(1990, 5, 17)

CHARACTER = (
    "A username consists of letters and digits of any script, '.', '_' and '-',"
    " and does not begin with a combining mark."
)
DOTS = "'.' and '..' are no usernames: clients resolve them in a path."
LENGTH = "A username has 1 to 64 characters."
ENCODING = "The username is not valid UTF-8, or contains NUL."


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("alice", "alice"),
        ("%61lice", "alice"),
        ("a.b-c_d9", "a.b-c_d9"),
        ("...", "..."),
        ("-", "-"),
        ("Zo%C3%AB", "Zoë"),
        ("Zoe%CC%88", "Zoë"),
        (quote("हिन्दी"), "हिन्दी"),
        (quote("สวัสดี"), "สวัสดี"),
        (quote("محمد"), "محمد"),
        (quote("李小龍"), "李小龍"),
        ("a" * 64, "a" * 64),
        (quote("𝒜" * 64), "𝒜" * 64),
    ],
)
def test_a_name_is_stored_and_greeted_in_normal_form(
    client: Client, users: StoredUsers, path: str, name: str
) -> None:
    assert client.ask("PUT", f"/hello/{path}", BODY).status_int == 204
    assert users.date_of(name) == BORN
    response = client.ask("GET", f"/hello/{path}")
    assert response.body == f'{{"message": "Hello, {name}! Happy birthday!"}}'.encode()


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("alice%0A", CHARACTER),
        ("%20", CHARACTER),
        ("a+b", CHARACTER),
        ("a%20b", CHARACTER),
        ("a;b", CHARACTER),
        ("%F0%9F%8E%82", CHARACTER),
        ("%CC%88", CHARACTER),
        ("%25", CHARACTER),
        ("%", CHARACTER),
        ("a" * 65, LENGTH),
        ("%F0%9D%92%9C" * 65, LENGTH),
        ("a" * 3000, LENGTH),
        ("%CC%88" * 600, LENGTH),
        ("%2E", DOTS),
        (".%2E", DOTS),
        ("%00", ENCODING),
        ("alice%00", ENCODING),
        ("%FF", ENCODING),
        ("alice%FF", ENCODING),
        ("Zo%EB", ENCODING),  # Latin-1
        ("%C3", ENCODING),  # cut off
        ("%C0%AF", ENCODING),  # an overlong slash
        ("%ED%A0%80", ENCODING),  # half a surrogate pair
        ("%F4%90%80%80", ENCODING),  # beyond Unicode
        ("%EF%BF%BD", ENCODING),  # U+FFFD, which stands for what was malformed
    ],
)
def test_what_is_no_name_is_refused(client: Client, path: str, detail: str) -> None:
    for response in (
        client.ask("PUT", f"/hello/{path}", BODY),
        client.ask("GET", f"/hello/{path}"),
        client.ask("HEAD", f"/hello/{path}"),
    ):
        assert response.status_int == 400
        if response.request.method != "HEAD":
            problem = assert_problem(response, 400, "invalid-username")
            assert problem["title"] == "Invalid username"
            assert problem["detail"] == detail


def test_composed_and_decomposed_names_are_one_user(client: Client) -> None:
    assert client.ask("PUT", "/hello/Zoe%CC%88", BODY).status_int == 204
    assert client.ask("GET", "/hello/Zo%C3%AB").status_int == 200


def test_case_matters(client: Client) -> None:
    client.put_user("Alice", "1990-05-17")
    assert client.get_user("Alice").status_int == 200
    assert client.get_user("alice").status_int == 404


@pytest.mark.parametrize("path", ["/hello/a%2Fb", "/hello/a/b", "/hello/", "/hello"])
def test_a_slash_is_never_part_of_a_name(client: Client, path: str) -> None:
    assert_problem(client.ask("PUT", path, BODY), 404)
    assert_problem(client.ask("GET", path), 404)


@pytest.mark.parametrize("path", ["/hello//", "/hello/%2F", "/hello///"])
def test_no_path_gives_an_empty_name(users: StoredUsers, path: str) -> None:
    client = Client(create_app(users, usernames=Usernames("(?s).*")))
    assert client.ask("PUT", path, BODY).status_int in (400, 404)
    assert users.date_of("") is None


def test_a_trailing_slash_is_ignored(client: Client, users: StoredUsers) -> None:
    assert client.ask("PUT", "/hello/alice/", BODY).status_int == 204
    assert users.date_of("alice") == BORN
    assert client.ask("GET", "/hello/alice/").body == client.ask("GET", "/hello/alice").body


def test_a_pattern_narrows_the_names(users: StoredUsers) -> None:
    client = Client(create_app(users, usernames=Usernames("[A-Za-z]+")))
    assert client.put_user("Alice", "1990-05-17").status_int == 204
    assert client.get_user("Alice").status_int == 200
    for name in ("alice1", "Zoë", "a.b", "alice\n"):
        for answer in (client.put_user(name, "1990-05-17"), client.get_user(name)):
            problem = assert_problem(answer, 400, "invalid-username")
            assert problem["detail"] == "A username must match [A-Za-z]+."
