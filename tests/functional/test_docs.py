"""The page at /docs, without a browser: what it is made of, and what it may load.

tests/system/operations/test_docs.py tries it in one.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hello.resources.docs import ASSETS
from tests.support.client import Client, assert_problem

DIRECTORY = Path(__file__).parents[2] / "hello/page"
VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """What a page refers to; raises AssertionError if an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.references: list[str] = []
        self.inline: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"an attribute of <{tag}> is there twice"
        self.references += [
            attributes[name] or "" for name in ("src", "href") if name in attributes
        ]
        self.inline += [name for name in attributes if name == "style" or name.startswith("on")]
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.inline.append(data)


@pytest.fixture
def page(client: Client) -> Page:
    return Page(client.ask("GET", "/docs").text)


def test_the_page_is_html_that_loads_its_own_files_alone(client: Client) -> None:
    response = client.ask("GET", "/docs")
    assert response.status_int == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.text.startswith("<!doctype html>\n")
    policy = dict(
        directive.partition(" ")[::2]
        for directive in response.headers["Content-Security-Policy"].split("; ")
    )
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert {"base-uri", "form-action", "frame-ancestors", "trusted-types"} == {
        name for name, value in policy.items() if value == "'none'"
    }


def test_nothing_in_the_page_needs_more_than_the_policy_allows(page: Page) -> None:
    assert page.inline == []
    assert len(set(page.ids)) == len(page.ids)


def test_everything_that_the_page_refers_to_is_served(client: Client, page: Page) -> None:
    assert {f"/docs/{name}" for name in ASSETS} <= set(page.references)
    for reference in page.references:
        assert reference.startswith("/")
        assert not reference.startswith("//")
        assert client.ask("GET", reference).status_int == 200


@pytest.mark.parametrize("name", ASSETS)
def test_a_file_of_the_page_is_served_as_what_it_is(client: Client, name: str) -> None:
    response = client.ask("GET", f"/docs/{name}")
    assert response.headers["Content-Type"] == ASSETS[name]
    assert response.body == (DIRECTORY / name).read_bytes()


def test_every_file_of_the_page_is_served() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == {"page.html", *ASSETS}


def test_nothing_comes_from_elsewhere() -> None:
    for path in DIRECTORY.iterdir():
        text = path.read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"//\w+\.|https?:|@import|\burl\(|data:", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|\bFunction\(", text)


@pytest.mark.parametrize("path", ["/docs/nothing", "/docs/page.html", "/docs/..%2Fapp.py"])
def test_nothing_else_of_the_package_is_served(client: Client, path: str) -> None:
    assert_problem(client.ask("GET", path), 404)


def test_the_root_is_what_it_was(client: Client) -> None:
    assert client.ask("GET", "/").body == b"Hello, world!"
