import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello.usernames import UsernameError, Usernames


@pytest.fixture(scope="module")
def usernames() -> Usernames:
    return Usernames()


def accepts(usernames: Usernames, raw: str) -> bool:
    try:
        usernames.parse(raw)
    except UsernameError:
        return False
    return True


@pytest.mark.parametrize(
    "name",
    [
        "alice",
        "Alice",
        "a",
        "0",
        "a.b-c_d",
        "...",
        "-",
        "_",
        "Zoë",
        "Ёлка",
        "हिन्दी",  # Devanagari writes vowels as marks
        "สวัสดี",  # so does Thai
        "مُحَمَّد",  # Arabic with vowel signs
        "李小龍",
        "きゃりー",
        "김철수",
        "٣٤",  # Arabic digits
        "𝒜",  # beyond the Basic Multilingual Plane
    ],
)
def test_letters_marks_and_digits_of_any_script_are_kept(usernames: Usernames, name: str) -> None:
    assert usernames.parse(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        ".",
        "..",
        " ",
        "a b",
        "alice\n",
        "\nalice",
        "a\0b",
        "a/b",
        "a@b",
        "a+b",
        "<b>",
        "🎂",
        "a\u200bb",  # zero-width space
        "a\u202eb",  # right-to-left override
        "\u0301a",  # a mark with no letter before it
        "a\ufffdb",  # what malformed UTF-8 was decoded to
        "½",
        "Ⅷ",
    ],
)
def test_everything_else_is_refused(usernames: Usernames, raw: str) -> None:
    with pytest.raises(UsernameError):
        usernames.parse(raw)


def test_case_matters(usernames: Usernames) -> None:
    assert usernames.parse("Alice") != usernames.parse("alice")


def test_composed_and_decomposed_are_the_same_name(usernames: Usernames) -> None:
    assert usernames.parse("Zoe\u0308") == usernames.parse("Zo\u00eb") == "Zo\u00eb"


@pytest.mark.parametrize("letter", ["a", "é", "李", "𝒜", "e\u0301"])
def test_64_characters_are_accepted_and_65_are_not(usernames: Usernames, letter: str) -> None:
    assert len(usernames.parse(letter * 64)) == 64
    with pytest.raises(UsernameError, match="1 to 64 characters"):
        usernames.parse(letter * 65)


def test_a_name_that_normalisation_makes_too_long_is_refused(usernames: Usernames) -> None:
    qa = "\u0958"  # one character that NFC writes as two
    assert len(usernames.parse(qa * 32)) == 64
    with pytest.raises(UsernameError, match="1 to 64 characters"):
        usernames.parse(qa * 33)


def test_a_name_of_the_longest_characters_is_accepted(usernames: Usernames) -> None:
    # No character comes of more: this is what the bound before normalising is made of.
    pieces = [unicodedata.normalize("NFD", chr(code)) for code in range(0x110000)]
    assert max(map(len, pieces)) == 4
    raw = unicodedata.normalize("NFD", "\u1f82") * 64
    assert len(raw) == 256
    assert usernames.parse(raw) == "\u1f82" * 64


def test_what_is_far_too_long_is_not_normalised(
    usernames: Usernames, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []

    def normalize(form: str, text: str) -> str:
        lengths.append(len(text))
        return text

    monkeypatch.setattr("hello.usernames.unicodedata.normalize", normalize)
    for length in (100, 256, 257, 2000):
        with pytest.raises(UsernameError, match="1 to 64 characters"):
            usernames.parse("a" + "\u0301" * (length - 1))
    assert lengths == [100, 256]


@pytest.mark.parametrize(
    ("raw", "accepted"),
    [("alice", True), ("alice1", False), ("alice\n", False), ("Zoë", False), ("", False)],
)
def test_a_pattern_narrows_the_rule_and_matches_the_whole_name(raw: str, accepted: bool) -> None:
    assert accepts(Usernames("[A-Za-z]+"), raw) == accepted


def test_an_alternative_of_a_pattern_matches_the_whole_name_too() -> None:
    assert not accepts(Usernames("a|ab"), "abc")
    assert accepts(Usernames("a|ab"), "ab")


@pytest.mark.parametrize("raw", ["", ".", "..", "a\0b", "a\ufffdb", "a" * 65])
def test_no_pattern_can_allow_what_is_never_a_name(raw: str) -> None:
    assert not accepts(Usernames("(?s).*"), raw)


@pytest.mark.parametrize("raw", ["secret name", "secretname" * 7, "secretname\0"])
def test_the_message_does_not_hold_the_name(usernames: Usernames, raw: str) -> None:
    with pytest.raises(UsernameError) as caught:
        usernames.parse(raw)
    assert "secret" not in str(caught.value)


def is_name(name: str) -> bool:
    """The rule in other words, by the categories of the standard library."""
    categories = [
        "." if character in "._-" else unicodedata.category(character) for character in name
    ]
    return (
        1 <= len(name) <= 64
        and name not in (".", "..")
        and all(category[0] in ".LM" or category == "Nd" for category in categories)
        and categories[0][0] != "M"
    )


# The standard library may know an older Unicode than `regex` does: what is unassigned
# for the one can be a letter for the other.
assigned = st.characters(exclude_categories=["Cn", "Cs"])
likely = st.characters(categories=["L", "M", "Nd"])


@given(st.text(st.one_of(likely, likely, st.sampled_from("aZ09._-"), assigned), max_size=70))
def test_a_name_is_what_the_unicode_categories_say(usernames: Usernames, raw: str) -> None:
    name = unicodedata.normalize("NFC", raw)
    if is_name(name):
        assert usernames.parse(raw) == name
    else:
        assert not accepts(usernames, raw)
