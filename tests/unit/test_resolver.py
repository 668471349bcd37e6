import pytest

from hello import resolver


def test_a_host_that_can_have_no_address_has_none_and_nothing_is_printed(
    capsys: pytest.CaptureFixture,
) -> None:
    # A label of more than 63 characters, which no name server is asked about.
    assert resolver.addresses("a" * 64, 5.0) == []
    assert capsys.readouterr().err == ""


def test_an_address_is_its_own() -> None:
    assert resolver.addresses("::1", 0.0) == ["::1"]
