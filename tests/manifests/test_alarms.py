"""Alarms of the databases, and the second copy of their backups: read as they are written."""

import re
from typing import Any

import hcl2
import pytest

from tests.support import monitoring
from tests.support.monitoring import ROOT, RUNBOOK

AWS = ROOT / "manifests" / "aws"


def _read(name: str) -> Any:
    with (AWS / name).open() as file:
        return hcl2.load(file)


def _resources(document: Any, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for block in document["resource"]:
        for name, resources in block.items():
            if name.strip('"') == kind:
                found |= {each.strip('"'): body for each, body in resources.items()}
    return found


ALARMS = _resources(_read("alarms.tf"), "aws_cloudwatch_metric_alarm")


@pytest.mark.parametrize("name", ALARMS)
def test_every_alarm_is_told_and_has_an_entry_in_the_runbook(name: str) -> None:
    alarm = ALARMS[name]
    told = ["${aws_sns_topic.alarms.arn}"]
    assert alarm["alarm_actions"] == alarm["ok_actions"] == told
    [anchor] = re.findall(r"docs/runbook\.md#(\w+)", alarm["alarm_description"])
    assert monitoring.anchors(RUNBOOK.read_text())[anchor]


def test_the_runbook_has_an_entry_for_each_alarm_and_no_other() -> None:
    anchors = {
        anchor
        for alarm in ALARMS.values()
        for anchor in re.findall(r"#(\w+)", alarm["alarm_description"])
    }
    entries = monitoring.entries("Alarms of the databases")
    assert {name.lower() for name in entries} == anchors


def test_silence_of_what_must_be_heard_is_an_alarm() -> None:
    for name in ("storage", "backup"):
        assert ALARMS[name]["treat_missing_data"].strip('"') == "breaching"


def test_the_longest_time_without_a_backup_is_more_than_a_day_and_less_than_two() -> None:
    alarm = ALARMS["backup"]
    factors = map(int, re.findall(r"\d+", str(alarm["period"])))
    period = 1
    for factor in factors:
        period *= factor
    assert 24 * 3600 < period * int(alarm["evaluation_periods"]) < 48 * 3600


def test_the_second_copy_has_a_key_of_its_own_and_is_kept_as_long() -> None:
    backups = _read("backups.tf")
    [copy] = _resources(backups, "aws_db_instance_automated_backups_replication").values()
    [key] = _resources(backups, "aws_kms_key").values()
    assert copy["provider"] == key["provider"] == "${aws.second}"
    assert copy["source_db_instance_arn"] == "${aws_db_instance.primary.arn}"
    assert copy["kms_key_id"] == "${aws_kms_key.second[0].arn}"
    assert copy["retention_period"] == "${var.backup_days}"


def test_files_with_variables_of_their_own_are_what_dev_may_change() -> None:
    assert re.search(r'^second_region += ""$', (AWS / "dev.tfvars").read_text(), re.M)
