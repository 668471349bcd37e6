# Alarms and the second copy of the backups, with AWS mocked as in properties.tftest.hcl.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }

  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/0" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/mock" }
  }

  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:mock" }
  }

  mock_resource "aws_ecr_repository" {
    defaults = { repository_url = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/hello" }
  }

  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0", latest_version = 1 }
  }

  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-central-1:111122223333:mock" }
  }

  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:mock" }
  }

  mock_resource "aws_db_instance" {
    defaults = { arn = "arn:aws:rds:eu-central-1:111122223333:db:hello-primary" }
  }
}

mock_provider "aws" {
  alias = "second"

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:111122223333:key/1" }
  }
}

variables {
  admins = ["arn:aws:iam::111122223333:role/admin"]
}

run "every_database_is_watched" {
  variables {
    replicas = 2
  }

  assert {
    condition = alltrue([
      for alarms in [aws_cloudwatch_metric_alarm.storage, aws_cloudwatch_metric_alarm.connections] :
      toset([for alarm in alarms : alarm.dimensions.DBInstanceIdentifier]) == toset(["hello-primary", "hello-replica-1", "hello-replica-2"])
    ])
    error_message = "Storage and connections of every database are watched."
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.storage), values(aws_cloudwatch_metric_alarm.connections), [aws_cloudwatch_metric_alarm.backup]) :
      alarm.alarm_actions == toset([aws_sns_topic.alarms.arn])
    ])
    error_message = "Every alarm goes to the topic."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.connections["primary"].threshold == 540
    error_message = "A db.m7g.large has 8 GiB: 901 connections at most, and 540 are six tenths."
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.backup.event_pattern).detail.SourceIdentifier[0] == "hello-primary"
    error_message = "The backups of the primary are what is counted."
  }
}

run "backups_are_in_a_second_region" {
  assert {
    condition = (
      aws_db_instance_automated_backups_replication.main[0].source_db_instance_arn == aws_db_instance.primary.arn &&
      aws_db_instance_automated_backups_replication.main[0].kms_key_id == aws_kms_key.second[0].arn &&
      aws_db_instance_automated_backups_replication.main[0].retention_period == var.backup_days
    )
    error_message = "The primary's backups are kept there as long as here, with a key of that region."
  }
}

run "small_and_in_one_region" {
  variables {
    second_region  = ""
    database_class = "db.t4g.micro"
    replicas       = 0
    alarm_emails   = ["somebody@example.org"]
  }

  assert {
    condition     = length(aws_db_instance_automated_backups_replication.main) == 0 && length(aws_kms_key.second) == 0
    error_message = "Without a second region there is no second copy."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.connections["primary"].threshold == 67
    error_message = "A db.t4g.micro has 1 GiB."
  }

  assert {
    condition     = aws_sns_topic_subscription.alarms["somebody@example.org"].protocol == "email"
    error_message = "Who is named is told."
  }
}

run "the_same_region_twice" {
  command = plan

  variables {
    second_region = "eu-central-1"
  }

  expect_failures = [var.second_region]
}
