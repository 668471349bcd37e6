"""The benchmark's arithmetic; what it measures is nobody's test."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import suites
from scripts.bench.goals import GOALS, Goal
from scripts.bench.registry import BY_NAME
from scripts.bench.report import Measurement, Report, Rounds, Setting, summary

NOTHING: dict[str, Any] = {field.name: None for field in dataclasses.fields(Measurement)}


def measured(**figures: float) -> Measurement:
    return Measurement(**NOTHING | {"rate": 1.0, "p50": 1.0, "p99": 1.0, "errors": 0} | figures)


def report(rounds: Rounds, workload: str = "get", connections: int = 32) -> Report:
    result = Report({"Python": "3.13"}, {"hello": "the service"})
    setting = Setting("servers", suites.USERS, 1, connections, workload)
    result.results[setting] = rounds
    return result


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = report({"hello": [measured(rate=1234.0, server_us=28.5)], "go": [measured(errors=3)]})
    written.absent["flask"] = "it is missing"
    written.write(tmp_path / "new" / "report.json")
    assert vars(Report.read(tmp_path / "new" / "report.json")) == vars(written)


def test_ratios_are_of_the_same_round() -> None:
    rounds = {
        "hello": [measured(rate=rate) for rate in (10.0, 40.0, 90.0)],
        "go": [measured(rate=rate) for rate in (10.0, 20.0, 30.0)],
    }
    row = summary(rounds, BY_NAME["go"])
    assert (row["rate"], row["times_rate"]) == (20.0, 2.0)


def test_cpu_is_that_of_all_servers() -> None:
    one = measured(server_us=30.0, postgresql_us=7.0, replica_us=2.0, cache_us=1.0)
    assert one.cpu_us == 40.0


@pytest.mark.parametrize(
    ("ours", "its", "words"), [(11.0, 10.0, "met"), (10.9, 10.0, "**not met**")]
)
def test_a_goal_is_met_from_its_bound_on(ours: float, its: float, words: str) -> None:
    goal = Goal("get", "rate", ("go",), at_least=1.1)
    line = goal.line(report({"hello": [measured(rate=ours)], "go": [measured(rate=its)]}))
    assert line == ("GET, 32 connections: requests/s ≥ 1.1 × go's", f"{ours / its:.2f}", words)


def test_a_goal_that_bounds_from_above() -> None:
    goal = Goal("put", "statements", (), at_most=0.2)
    assert goal.line(report({"hello": [measured(statements=0.21)]}, "put"))[2] == "**not met**"
    assert goal.line(report({"hello": [measured(statements=0.2)]}, "put"))[2] == "met"


def test_the_best_peer_is_the_one_with_the_least() -> None:
    goal = next(goal for goal in GOALS if goal.field == "p99" and goal.workload == "get")
    peers = {"go": [measured(p99=5.0)], "fastapi": [measured(p99=2.0)]}
    assert goal.measured(report({"hello": [measured(p99=4.0)]} | peers)) == 2.0


def test_a_goal_without_its_contestant_is_not_measured() -> None:
    goal = Goal("get", "rate", ("go",), at_least=1.1)
    assert goal.line(report({"hello": [measured()]}))[1:] == ("–", "not measured")
    assert goal.line(report({"go": [measured()]}, connections=1))[1:] == ("–", "not measured")


def test_the_full_run_measures_what_the_goals_compare() -> None:
    measures = {setting: names for suite in suites.FULL for setting, _, names in suite.settings()}
    for goal in GOALS:
        suite = "servers" if goal.workers == 1 else "workers"
        setting = Setting(suite, suites.USERS, goal.workers, goal.connections, goal.workload)
        assert {goal.ours, *goal.its} <= set(measures[setting]), str(goal)


def test_half_an_hour_is_enough_for_the_full_run() -> None:
    assert suites.seconds_each(suites.FULL, 30) >= 2
    assert suites.seconds_each(suites.FULL, 1) == 1
