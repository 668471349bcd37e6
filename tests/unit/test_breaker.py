import pytest

from hello.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(cooldown=1.0, clock=clock)


def test_while_all_is_well_everybody_may_try(breaker: Breaker) -> None:
    assert [breaker.allows() for _ in range(3)] == [True] * 3
    assert not breaker.is_open


def test_after_a_failure_nobody_may_try_until_the_cooldown_is_over(
    breaker: Breaker, clock: Clock
) -> None:
    breaker.failed()
    assert breaker.is_open
    assert not breaker.allows()
    clock.now += 0.99
    assert not breaker.allows()
    clock.now += 0.01
    assert breaker.allows()


def test_one_in_each_cooldown_may_try_until_somebody_succeeds(
    breaker: Breaker, clock: Clock
) -> None:
    breaker.failed()
    clock.now += 1
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    assert breaker.is_open
    # Whoever was let through may never report: a greenlet can be killed.
    clock.now += 1
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert not breaker.is_open
    assert [breaker.allows() for _ in range(3)] == [True] * 3


def test_a_try_that_fails_begins_the_cooldown_again(breaker: Breaker, clock: Clock) -> None:
    breaker.failed()
    clock.now += 1
    assert breaker.allows()
    clock.now += 0.5
    breaker.failed()
    clock.now += 0.99
    assert not breaker.allows()
    clock.now += 0.01
    assert breaker.allows()


def test_a_failure_may_ask_for_a_cooldown_of_its_own(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(10)
    clock.now += 9.99
    assert not breaker.allows()
    clock.now += 0.01
    assert breaker.allows()
    breaker.failed(0.25)
    clock.now += 0.25
    assert breaker.allows()


def test_breakers_are_independent(clock: Clock) -> None:
    one, other = Breaker(clock=clock), Breaker(clock=clock)
    one.failed()
    assert not one.allows()
    assert other.allows()
