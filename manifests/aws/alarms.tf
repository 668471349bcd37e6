# What Prometheus cannot see of the databases: storage, connections, failures and backups of RDS, by
# CloudWatch. docs/runbook.md has an entry for each alarm.

locals {
  # Bytes that an instance class has, by its name: db.m7g.large has 8 GiB, and so has t4g.large;
  # those of the families r have twice as much, x four times, c half.
  class  = split(".", var.database_class)
  factor = lookup({ r = 2, x = 4, c = 0.5 }, substr(local.class[1], 0, 1), 1)
  gib = lookup({
    micro     = 1, small = 2, medium = 4, large = 8, xlarge = 16, "2xlarge" = 32, "4xlarge" = 64,
    "8xlarge" = 128, "12xlarge" = 192, "16xlarge" = 256, "24xlarge" = 384,
  }, local.class[2], 8) * local.factor
  # RDS allows one connection for each 9531392 bytes, and at most 5000. What the class has for the
  # database is 7 to 30 % less than all of its memory, so this is two thirds to nine tenths of it.
  connections = min(floor(0.6 * local.gib * pow(1024, 3) / 9531392), 4000)

  databases = merge(
    { primary = aws_db_instance.primary.identifier },
    { for number, replica in aws_db_instance.replica : "replica-${number + 1}" => replica.identifier },
  )
}

# Names of alarms and of databases go through it, and nothing of a user.
resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:no personal data; CloudWatch would need a key of its own for it
  name = "${var.name}-alarms"
}

data "aws_iam_policy_document" "alarms" {
  statement {
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "events.rds.amazonaws.com"]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

# AWS asks by mail first whether it is wanted.
resource "aws_sns_topic_subscription" "owner" {
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.owner
}

# The storage grows by itself when less than a tenth is free, up to ten times what it was at first,
# and not twice within six hours. This is when that did not help.
resource "aws_cloudwatch_metric_alarm" "storage" {
  for_each = local.databases

  alarm_name          = "${var.name}-${each.key}-storage"
  alarm_description   = "Storage is nearly full; a full database refuses writes. docs/runbook.md#databasestorage"
  namespace           = "AWS/RDS"
  metric_name         = "FreeStorageSpace"
  dimensions          = { DBInstanceIdentifier = each.value }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = var.database_storage * 0.05 * pow(1024, 3)
  period              = 300
  evaluation_periods  = 3
  # A database that says nothing for a quarter of an hour is told of, too.
  treat_missing_data = "breaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "connections" {
  for_each = local.databases

  alarm_name          = "${var.name}-${each.key}-connections"
  alarm_description   = "Connections come near what the database allows. docs/runbook.md#databaseconnections"
  namespace           = "AWS/RDS"
  metric_name         = "DatabaseConnections"
  dimensions          = { DBInstanceIdentifier = each.value }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = local.connections
  period              = 60
  evaluation_periods  = 5
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# RDS has no figure for a backup that fails. It has an event for each that ends, and the absence of
# that for 30 hours is the alarm: EventBridge counts how often its rule was met.
resource "aws_cloudwatch_event_rule" "backup" {
  name        = "${var.name}-backup"
  description = "An automated backup of the primary has ended."

  event_pattern = jsonencode({
    source        = ["aws.rds"]
    "detail-type" = ["RDS DB Instance Event"]
    detail = {
      EventID          = ["RDS-EVENT-0002"]
      SourceIdentifier = [aws_db_instance.primary.identifier]
    }
  })
}

# A rule needs somewhere to send what it found.
resource "aws_cloudwatch_log_group" "events" {
  #checkov:skip=CKV_AWS_338:a list of backups is of no use after the backups are gone
  name              = "/aws/events/${var.name}-backup"
  retention_in_days = 90
}

data "aws_iam_policy_document" "events" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.events.arn}:*"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com", "delivery.logs.amazonaws.com"]
    }
  }
}

resource "aws_cloudwatch_log_resource_policy" "events" {
  policy_name     = "${var.name}-events"
  policy_document = data.aws_iam_policy_document.events.json
}

resource "aws_cloudwatch_event_target" "backup" {
  rule = aws_cloudwatch_event_rule.backup.name
  arn  = aws_cloudwatch_log_group.events.arn
}

resource "aws_cloudwatch_metric_alarm" "backup" {
  alarm_name          = "${var.name}-primary-backup"
  alarm_description   = "No automated backup has ended for 30 hours. docs/runbook.md#databasebackup"
  namespace           = "AWS/Events"
  metric_name         = "TriggeredRules"
  dimensions          = { RuleName = aws_cloudwatch_event_rule.backup.name }
  statistic           = "Sum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 6 * 3600
  evaluation_periods  = 5
  # There is no figure where there is no event.
  treat_missing_data = "breaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]
}

# Failovers, and what RDS itself calls a failure.
resource "aws_db_event_subscription" "main" {
  name        = "${var.name}-database"
  sns_topic   = aws_sns_topic.alarms.arn
  source_type = "db-instance"
  source_ids  = values(local.databases)

  event_categories = ["failover", "failure", "low storage"]

  depends_on = [aws_sns_topic_policy.alarms]
}
