"""What any class of settings can do; tests/unit/test_settings.py has those of the service."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from hello.declaration import DeclaredSettings, Shown, boolean, one_of, seconds, setting
from hello.environment import SettingsError, integer


@dataclass(frozen=True, kw_only=True)
class Settings(DeclaredSettings):
    size: int = setting("SIZE", integer(1, 9), 3)
    wait: float = setting("WAIT", seconds, 1.5)
    loud: bool = setting("LOUD", boolean, False)
    form: str = setting("FORM", one_of("round", "square"), "round")
    token: str = setting("TOKEN", str, "", secret="none")
    #: No setting.
    other: int = 1


def read(**environ: str) -> Settings:
    return Settings.read({"SECRETS_DIR": "/"} | environ)


def test_what_nobody_sets_has_its_default() -> None:
    settings = read()
    assert settings == Settings(source=settings.source)


def test_each_setting_is_read() -> None:
    settings = read(SIZE="9", WAIT="0.25", LOUD="On", FORM="SQUARE", TOKEN="s3cret")
    assert (settings.size, settings.wait, settings.loud) == (9, 0.25, True)
    assert (settings.form, settings.token, settings.other) == ("square", "s3cret", 1)


def test_the_first_that_is_wrong_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^SIZE: must be a whole number from 1 to 9$"):
        read(SIZE="10", FORM="flat")
    with pytest.raises(SettingsError, match=r"^FORM: must be round or square$"):
        read(FORM="flat")


def test_one_may_be_checked_alone() -> None:
    Settings.check("SIZE", {"SECRETS_DIR": "/", "SIZE": "2", "FORM": "flat"})
    with pytest.raises(SettingsError, match=r"^FORM: "):
        Settings.check("FORM", {"SECRETS_DIR": "/", "SIZE": "2", "FORM": "flat"})


def test_a_secret_is_not_shown_and_its_default_is_what_was_said(tmp_path: Path) -> None:
    assert read().shown()[1:] == [
        Shown("SIZE", "3", "default"),
        Shown("WAIT", "1.5", "default"),
        Shown("LOUD", "off", "default"),
        Shown("FORM", "round", "default"),
        Shown("TOKEN", "none", "default"),
    ]
    (tmp_path / "TOKEN").write_text("s3cret")
    shown = read(SECRETS_DIR=str(tmp_path)).shown()
    assert shown[0] == Shown("SECRETS_DIR", str(tmp_path), "variable SECRETS_DIR")
    assert shown[-1] == Shown("TOKEN", "secret", f"file {tmp_path}/TOKEN")
