# The backups of the primary in a second region, where a new database can be made of them when the
# first region is away: docs/disaster-recovery.md.

variable "second_region" {
  description = "Where a second copy of the backups goes; empty: nowhere."
  type        = string
  default     = "eu-west-1"

  validation {
    condition     = var.second_region != var.region
    error_message = "The second region must be another one."
  }
}

provider "aws" {
  alias  = "second"
  region = var.second_region != "" ? var.second_region : var.region

  default_tags {
    tags = {
      Project = var.name
    }
  }
}

# A key cannot be used in another region.
resource "aws_kms_key" "second" {
  count    = var.second_region != "" ? 1 : 0
  provider = aws.second

  description             = "${var.name}: backups of the database in ${var.region}"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  # As for the first one: without it the copies are nothing. Terraform must forget it before it does
  # without a second region, too.
  lifecycle {
    prevent_destroy = true
  }
}

# The daily backup and the log, so that any second can be restored there as well; the log arrives
# some minutes later.
resource "aws_db_instance_automated_backups_replication" "main" {
  count    = var.second_region != "" ? 1 : 0
  provider = aws.second

  source_db_instance_arn = aws_db_instance.primary.arn
  kms_key_id             = aws_kms_key.second[0].arn
  retention_period       = var.backup_days
}
