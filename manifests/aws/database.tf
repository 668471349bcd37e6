resource "aws_db_subnet_group" "main" {
  name       = var.name
  subnet_ids = aws_subnet.data[*].id
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "PostgreSQL"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "${var.name}-database" }
}

# The only way in. There is none out.
resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  description                  = "PostgreSQL, from nodes"
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_parameter_group" "main" {
  name   = "${var.name}-postgres${var.postgresql_version}"
  family = "postgres${var.postgresql_version}"

  # Refuse connections without TLS.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  # Statements hold usernames and dates of birth: the log says what failed, and does not quote it.
  # For the same reason nothing here logs slow statements or shows those that run (Performance
  # Insights).
  parameter {
    name  = "log_min_error_statement"
    value = "panic"
  }

  # Nor does it quote the row that a constraint refused: no DETAIL, no CONTEXT.
  parameter {
    name  = "log_error_verbosity"
    value = "terse"
  }

  lifecycle {
    create_before_destroy = true
  }
}

# RDS could keep and rotate this password by itself (manage_master_user_password), but then it
# refuses read replicas, for PostgreSQL ("Limitations for Secrets Manager integration with Amazon
# RDS"). So it is made here, kept in Secrets Manager, and is in no plan or state.
ephemeral "aws_secretsmanager_random_password" "admin" {
  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "admin" {
  name                    = "${var.name}/database/admin"
  kms_key_id              = aws_kms_key.main.arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

resource "aws_secretsmanager_secret_version" "admin" {
  secret_id                = aws_secretsmanager_secret.admin.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.admin.random_password
  secret_string_wo_version = var.admin_password_version
}

# RDS gets the one that is kept, and not the one that was just made: a database that was restored and
# imported has no password of this state yet, while the secret has its own for long.
ephemeral "aws_secretsmanager_secret_version" "admin" {
  secret_id  = aws_secretsmanager_secret.admin.id
  version_id = aws_secretsmanager_secret_version.admin.version_id
}

# The service's own role is made in the database by roles.sql, with this password.
ephemeral "aws_secretsmanager_random_password" "service" {
  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "service" {
  name                    = "${var.name}/database/service"
  kms_key_id              = aws_kms_key.main.arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

resource "aws_secretsmanager_secret_version" "service" {
  secret_id                = aws_secretsmanager_secret.service.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.service.random_password
  secret_string_wo_version = var.service_password_version
}

# Made here, since RDS would make them without an end to what they keep.
resource "aws_cloudwatch_log_group" "database" {
  for_each = toset(flatten([
    for instance in concat(["primary"], [for number in range(var.replicas) : "replica-${number + 1}"]) :
    [for log in ["postgresql", "upgrade"] : "${instance}/${log}"]
  ]))

  name              = "/aws/rds/instance/${var.name}-${each.value}"
  retention_in_days = var.log_days
}

resource "aws_db_instance" "primary" {
  identifier     = "${var.name}-primary"
  engine         = "postgres"
  engine_version = var.postgresql_version
  instance_class = var.database_class
  # At the end of a version's ordinary support RDS raises it, instead of the price.
  engine_lifecycle_support = "open-source-rds-extended-support-disabled"

  storage_type          = "gp3"
  allocated_storage     = var.database_storage
  max_allocated_storage = var.database_storage * 10
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.main.arn

  db_name             = "hello"
  username            = "hello_admin"
  password_wo         = ephemeral.aws_secretsmanager_secret_version.admin.secret_string
  password_wo_version = var.admin_password_version

  db_subnet_group_name   = aws_db_subnet_group.main.name
  vpc_security_group_ids = [aws_security_group.database.id]
  publicly_accessible    = false
  multi_az               = var.multi_az
  parameter_group_name   = aws_db_parameter_group.main.name
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  backup_retention_period   = var.backup_days
  backup_window             = "02:00-03:00"
  maintenance_window        = "sun:03:30-sun:04:30"
  copy_tags_to_snapshot     = true
  delete_automated_backups  = !var.deletion_protection
  deletion_protection       = var.deletion_protection
  skip_final_snapshot       = !var.deletion_protection
  final_snapshot_identifier = "${var.name}-final"

  auto_minor_version_upgrade      = true
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]

  depends_on = [aws_cloudwatch_log_group.database]
}

resource "aws_db_instance" "replica" {
  #checkov:skip=CKV_AWS_133:the primary is backed up
  #checkov:skip=CKV_AWS_293:it is made anew by `terraform apply -replace`
  #checkov:skip=CKV_AWS_157:it is another zone's copy itself, and the service reads the primary meanwhile
  count = var.replicas

  identifier          = "${var.name}-replica-${count.index + 1}"
  replicate_source_db = aws_db_instance.primary.identifier
  instance_class      = var.database_class

  # With the primary's key, as every replica in its region.
  storage_type          = "gp3"
  max_allocated_storage = var.database_storage * 10
  storage_encrypted     = true

  vpc_security_group_ids = [aws_security_group.database.id]
  publicly_accessible    = false
  multi_az               = false
  parameter_group_name   = aws_db_parameter_group.main.name
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  # The primary is backed up; a replica can be made anew at any time, and so is not protected.
  backup_retention_period = 0
  skip_final_snapshot     = true
  maintenance_window      = "sun:05:00-sun:06:00"
  copy_tags_to_snapshot   = true

  auto_minor_version_upgrade      = true
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]

  depends_on = [aws_cloudwatch_log_group.database]
}
