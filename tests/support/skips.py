"""Which tests may be skipped where everything is installed that can be: with --no-unlisted-skips.

Elsewhere a test that needs a program is skipped where that is missing, and says so. In CI a skip
must not hide that something was not tried: there it fails, unless it is on this list.
"""

from collections.abc import Generator

import pytest

#: The reasons that are accepted, and why nothing can be done about them.
LISTED = {
    "needs a Docker daemon to build with": "a container has none",
    "needs docker compose": "it comes with Docker, and in no package that every Debian has",
    "needs terraform": "neither Debian nor PyPI has it",
    "needs moto_server, of moto": "it goes with terraform",
    "needs aws, of awscli": "it goes with terraform",
    "needs the AWS provider: its registry, or TERRAFORM_PROVIDERS=FOLDER": (
        "providers come from a registry of their own"
    ),
    "needs Redocly's CLI, with Node.js, from npm": "it is no package of Debian's or PyPI's",
    "needs Patroni 3.1 or newer": "Debian 12 has 3.0.2, which stays stuck after it stood still",
    "this machine has no IPv6": "a container may have none",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-unlisted-skips",
        action="store_true",
        help="fail a test that is skipped for another reason than tests/support/skips.py lists",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return judge(report) if item.config.getoption("--no-unlisted-skips") else report


def judge(report: pytest.TestReport) -> pytest.TestReport:
    """A report in which a skip is a failure, unless its reason is listed."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in LISTED:
            report.outcome = "failed"
            report.longrepr = f"skipped, and tests/support/skips.py does not list why: {reason}"
    return report
