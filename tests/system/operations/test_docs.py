"""The page at /docs in a real browser."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from hello.problems import Problem
from tests.support.browser import CHROMEDRIVER, CHROMIUM, Browser, chromium
from tests.support.processes import eventually
from tests.support.service import Service

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="needs Chromium and its driver (Debian: chromium, chromium-driver)",
)

PUT, GET = "#putBirthday", "#getBirthday"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service().wait_until() as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(service: Service, browser: Browser) -> Callable[..., Browser]:
    """Opens the page and waits until it is shown."""

    def open_page(fragment: str = "", **options: Any) -> Browser:
        browser.open("about:blank")  # for another fragment alone, nothing would be loaded
        browser.open(f"http://127.0.0.1:{service.port}/docs{fragment}", **options)
        browser.wait_for("main:not([aria-busy])")
        return browser

    return open_page


@pytest.fixture
def page(open_page: Callable[[], Browser]) -> Browser:
    return open_page()


def fill(page: Browser, selector: str, text: str) -> None:
    field = page.find(selector)
    field.clear()
    field.send_keys(text)


def send(page: Browser, operation: str) -> tuple[str, str]:
    """Press the button of an operation; the status and the body that the page then shows."""
    page.run("document.querySelector(arguments[0]).replaceChildren()", f"{operation} .answer")
    page.find(f"{operation} button").click()
    return answer(page, operation)


def answer(page: Browser, operation: str) -> tuple[str, str]:
    status = page.wait_for(f"{operation} .answer p").text
    return status, page.find(f"{operation} .answer .body").text


def curl(page: Browser, operation: str) -> tuple[str, dict[str, str], bytes]:
    """Run the command that the page shows; status, header fields and body."""
    command = page.find(f"{operation} .curl").text
    assert command.startswith("curl -i ")
    done = subprocess.run(
        ["sh", "-c", f"{command} --silent"],
        env={"PATH": os.environ["PATH"]},  # and no proxy
        capture_output=True,
        check=True,
        timeout=30,
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    return (
        line.removeprefix("HTTP/1.1 "),
        {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)},
        body,
    )


def fields(page: Browser, operation: str) -> dict[str, str]:
    """The header fields that the page shows."""
    text = page.find(f"{operation} .answer .fields").get_property("textContent")
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_it_loads_without_a_complaint_and_from_the_service_alone(page: Browser) -> None:
    page.find(f"{PUT} button").click()
    page.wait_for(f"{PUT} .answer p")
    assert page.console() == []
    loaded = page.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert len(loaded) >= 4
    origin = page.run("return location.origin")
    assert all(name.startswith(f"{origin}/") for name in loaded)


def test_the_policy_holds(page: Browser) -> None:
    """What it forbids is not done, and would be seen by the test above."""
    page.run("const style = document.createElement('style'); document.head.append(style)")
    assert "Content Security Policy" in "".join(page.console())
    with pytest.raises(Exception, match="TrustedHTML"):
        page.run("document.body.innerHTML = '<b>'")
    assert page.run("return document.querySelector('main section') !== null")


def test_it_shows_every_operation(page: Browser, service: Service) -> None:
    with service.client() as client:
        document = client.request("GET", "/openapi.json").json
    described = {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method in item.keys() - {"parameters", "head", "options"}
    }
    assert {heading.text for heading in page.find_all(".operation h3")} == described
    assert page.find("h1").text == document["info"]["title"]


def top(page: Browser, selector: str) -> float:
    """Where an element begins, from the top of the window."""
    found: float = page.run(
        "return document.querySelector(arguments[0]).getBoundingClientRect().top", selector
    )
    return found


@pytest.mark.parametrize(
    "fragment", ["#getHealth", "#getBirthday-tz", "#getAsset-asset", "#problem-user-not-found"]
)
def test_a_link_leads_to_what_it_names(open_page: Callable[..., Browser], fragment: str) -> None:
    page = open_page(fragment)
    eventually(lambda: -1 < top(page, fragment) < 900)
    assert page.find(":target").get_attribute("id") == fragment[1:]
    assert page.find(fragment).is_displayed()
    assert page.run(
        "const at = document.querySelector(arguments[0]).closest('details');"
        "return at === null || at.open",
        fragment,
    )
    assert page.console() == []


def test_a_link_within_the_page_opens_what_it_names(page: Browser) -> None:
    operation = page.find("#getHealth")
    assert operation.get_attribute("open") is None
    page.run("location.hash = 'getHealth'")
    page.wait_for("#getHealth[open]")
    eventually(lambda: -1 < top(page, "#getHealth") < 900)


@pytest.mark.parametrize("fragment", ["#", "#nothing", "#%", "#a b"])
def test_a_link_to_nothing_shows_the_page(open_page: Callable[..., Browser], fragment: str) -> None:
    page = open_page(fragment)
    assert page.find("#getBirthday").is_displayed()
    assert top(page, "h1") >= 0
    assert page.console() == []


def test_every_type_of_problem_has_a_section(
    open_page: Callable[..., Browser], service: Service
) -> None:
    page = open_page("#problem-user-not-found")
    sections = page.find_all("#problems .problem")
    assert {section.get_attribute("id") for section in sections} == {
        f"problem-{problem.slug}" for problem in Problem.__subclasses__()
    }
    with service.client() as client:
        problem = client.request("GET", "/hello/nobody-here").json
    section = page.find("#problem-user-not-found")
    assert section.find_element("css selector", "h3").text == "404 User not found"
    assert section.find_element("css selector", "p code").text == problem["type"]
    link = section.find_element("css selector", "a")
    assert (link.text, link.get_attribute("hash")) == ("GET /hello/{username}", GET)


#: How far everything has moved, once what was last drawn is shown: Cumulative Layout Shift.
SHIFTS = """
return new Promise((resolve) => {
  let sum = 0;
  const add = (entries) => { for (const { value } of entries) sum += value; };
  const observer = new PerformanceObserver((list) => add(list.getEntries()));
  observer.observe({ type: "layout-shift", buffered: true });
  requestAnimationFrame(() => requestAnimationFrame(() => {
    add(observer.takeRecords());
    resolve(sum);
  }));
});
"""

#: When something was painted first, and when the description had come.
TIMES = """
return [
  performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
  performance.getEntriesByType("resource").find(({ name }) => name.endsWith("/openapi.json"))
    .responseEnd,
];
"""


@pytest.mark.parametrize("fragment", ["", "#getHealth"])
@pytest.mark.parametrize("width", [390, 1100])
def test_nothing_moves_while_it_loads(
    open_page: Callable[..., Browser], width: int, fragment: str
) -> None:
    page = open_page(fragment, width=width, slow=True)
    painted, described = page.run(TIMES)
    assert painted < described  # so that there was something to move
    assert page.run(SHIFTS) < 0.1


#: How many elements there are whenever the page lets the browser have its turn. The page's clock
#: goes on by a millisecond with each look, however fast the machine is.
COUNTS = """
let now = 0;
performance.now = () => ++now;
window.counts = [];
const count = () => counts.push(document.querySelectorAll("main *").length);
new MutationObserver(count).observe(document, { childList: true, subtree: true });
"""


def test_what_is_folded_is_made_after_what_is_seen(
    open_page: Callable[..., Browser], browser: Browser
) -> None:
    with browser.run_first(COUNTS):
        page = open_page()
    assert page.run("return document.querySelectorAll('details:not(:has(> div))').length") == 0
    counts = page.run("return counts")
    [shown, *later] = [count for count in counts if count > 100]
    assert shown < later[-1] / 2
    steps = [after - before for before, after in pairwise([shown, *later])]
    assert max(steps) < later[-1] / 2


#: When the script had come, and each request for the description had begun.
REQUESTS = """
const named = (end) => performance.getEntriesByType("resource")
  .filter(({ name }) => name.endsWith(end));
return [
  named("/page.js")[0].responseEnd,
  named("/openapi.json").map(({ startTime }) => startTime),
];
"""


def test_the_description_is_asked_for_once_and_does_not_wait_for_the_script(
    open_page: Callable[..., Browser],
) -> None:
    come, asked = open_page(slow=True).run(REQUESTS)
    assert len(asked) == 1
    assert asked[0] < come


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("name", ["alice", "Zoë", "ไทย", "O'Neil", "a/b", "50%"])
def test_put_and_get_give_what_curl_gives(page: Browser, name: str) -> None:
    today = datetime.now(UTC)
    fill(page, f"{PUT}-username", name)
    fill(page, f"{PUT}-body", f'{{"dateOfBirth": "1990-{today:%m-%d}", "is": "O\'Neil\'s"}}')
    fill(page, f"{GET}-username", name)
    fill(page, f"{GET}-tz", "UTC")
    for operation in (PUT, GET):
        status, body = send(page, operation)
        shown = fields(page, operation)
        by_curl, their_fields, their_body = curl(page, operation)
        assert status == by_curl
        if their_body:
            ours, theirs = json.loads(body), json.loads(their_body)
            for problem in (ours, theirs):
                problem.pop("request_id", None)
            assert ours == theirs
        else:
            assert body == "no body"
        for changing in ("date", "x-request-id", "connection", "server"):
            shown.pop(changing, None)
            their_fields.pop(changing, None)
        assert shown == their_fields
    if name.isalpha():
        assert status == "200 OK"
        assert json.loads(body)["message"].startswith(f"Hello, {name}! ")
    assert page.console() == [] or not name.isalpha()


@pytest.mark.parametrize(
    ("operation", "field", "text", "status", "kind"),
    [
        (PUT, "body", '{"dateOfBirth": "19900101"}', "400 Bad Request", "invalid-date"),
        (PUT, "body", "", "400 Bad Request", "invalid-body"),
        (PUT, "body", " " * 5000, "413 Content Too Large", "body-too-large"),
        (PUT, "username", "a b", "400 Bad Request", "invalid-username"),
        (GET, "username", "nobody", "404 Not Found", "user-not-found"),
        (GET, "tz", "Nowhere", "400 Bad Request", "unknown-time-zone"),
    ],
)
def test_an_error_is_shown_as_a_problem(
    page: Browser, operation: str, field: str, text: str, status: str, kind: str
) -> None:
    page.run(
        "const field = document.querySelector(arguments[0]); field.value = arguments[1]",
        f"{operation}-{field}",
        text,
    )
    shown, body = send(page, operation)
    assert shown == status
    problem = json.loads(body)
    assert problem["type"] == f"/docs#problem-{kind}"
    assert problem["detail"]
    assert fields(page, operation)["content-type"] == "application/problem+json"
    assert fields(page, operation)["x-request-id"] == problem["request_id"]


def test_no_answer_is_said_to_be_none(browser: Browser) -> None:
    with Service().wait_until() as service:
        browser.open(f"http://127.0.0.1:{service.port}/docs")
        browser.wait_for(GET)
    browser.find(f"{GET} button").click()
    assert browser.wait_for(f"{GET} .answer p").text.startswith("No answer: ")


def test_it_can_be_used_with_the_keyboard_alone(page: Browser) -> None:
    fill(page, f"{PUT}-username", "keyboard")
    page.find(f"{PUT}-username").send_keys("\ue007")  # Enter
    assert answer(page, PUT)[0] == "204 No Content"
    assert page.find(f"{PUT} .answer").get_attribute("aria-live") == "polite"


def test_everything_has_a_name(page: Browser) -> None:
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    controls = page.find_all("input, select, textarea, button, form")
    assert len(controls) > 15
    assert all(control.accessible_name for control in controls)


SHOW_ALL = """
for (const one of document.querySelectorAll("details")) one.open = true;
for (const one of document.querySelectorAll("button")) one.click();
"""

#: The elements that are less legible than WCAG 2.2 asks for, with their contrast.
FAINT = """
const channels = (color) => color.match(/[\\d.]+/g).map(Number);
const luminance = (color) => {
  const [r, g, b] = channels(color).map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (channels(color)[3] !== 0) return color;
  }
};
return [...document.querySelectorAll("body *")]
  .filter((one) => one.matches("input, textarea, select") ||
    [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
  .map((one) => {
    const pair = [getComputedStyle(one).color, background(one)].map(luminance);
    return [one.outerHTML, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
  })
  .filter(([, contrast]) => !(contrast >= 4.5));
"""


@pytest.mark.parametrize("width", [320, 390, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible_and_fits(open_page: Callable[..., Browser], width: int, scheme: str) -> None:
    page = open_page(width=width, scheme=scheme)
    page.run(SHOW_ALL)
    operations = len(page.find_all(".operation"))
    eventually(lambda: len(page.find_all(".answer > p")) == operations)
    scroll, inner = page.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner == width
    assert scroll <= width
    assert operations >= 10
    assert page.run(FAINT) == []
    paper = page.run("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
