resource "aws_elasticache_subnet_group" "main" {
  name       = var.name
  subnet_ids = aws_subnet.data[*].id
}

resource "aws_security_group" "cache" {
  name        = "${var.name}-cache"
  description = "Valkey"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "${var.name}-cache" }
}

# The only way in. There is none out.
resource "aws_vpc_security_group_ingress_rule" "cache" {
  security_group_id            = aws_security_group.cache.id
  description                  = "Valkey, from nodes"
  referenced_security_group_id = aws_security_group.nodes.id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_elasticache_parameter_group" "main" {
  name   = "${var.name}-valkey${split(".", var.valkey_version)[0]}"
  family = "valkey${split(".", var.valkey_version)[0]}"

  # The least recently used user makes room. The default refuses writes when a cache is full of
  # keys that do not expire; ours all do, and this says it.
  parameter {
    name  = "maxmemory-policy"
    value = "allkeys-lru"
  }

  lifecycle {
    create_before_destroy = true
  }
}

# Kept in Secrets Manager, as the others. ElastiCache has no write-only argument for it in this
# provider: this one alone is in the state too, which is why the state's bucket is encrypted and
# closed.
ephemeral "aws_secretsmanager_random_password" "cache" {
  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "cache" {
  name                    = "${var.name}/cache"
  kms_key_id              = aws_kms_key.main.arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

resource "aws_secretsmanager_secret_version" "cache" {
  secret_id                = aws_secretsmanager_secret.cache.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.cache.random_password
  secret_string_wo_version = var.cache_password_version
}

data "aws_secretsmanager_secret_version" "cache" {
  secret_id  = aws_secretsmanager_secret.cache.id
  version_id = aws_secretsmanager_secret_version.cache.version_id
}

resource "aws_elasticache_replication_group" "main" {
  #checkov:skip=CKV2_AWS_50:it fails over by itself if it has more than one node, a variable
  replication_group_id = var.name
  description          = "${var.name}: users that were read lately"

  engine               = "valkey"
  engine_version       = var.valkey_version
  node_type            = var.cache_type
  parameter_group_name = aws_elasticache_parameter_group.main.name

  # One primary with replicas. The service's scripts touch several keys at once, which a
  # clustered Valkey would refuse: docs/decisions/cache.md.
  cluster_mode               = "disabled"
  num_cache_clusters         = var.cache_nodes
  automatic_failover_enabled = var.cache_nodes > 1
  multi_az_enabled           = var.cache_nodes > 1

  subnet_group_name  = aws_elasticache_subnet_group.main.name
  security_group_ids = [aws_security_group.cache.id]

  at_rest_encryption_enabled = true
  kms_key_id                 = aws_kms_key.main.arn
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  auth_token                 = data.aws_secretsmanager_secret_version.cache.secret_string
  # ROTATE adds the newest password, and SET leaves it alone: docs/runbook.md.
  auth_token_update_strategy = var.cache_password_rotates ? "ROTATE" : "SET"
  apply_immediately          = true

  # What a cache holds is in the database.
  snapshot_retention_limit = 0
  maintenance_window       = "sun:06:30-sun:07:30"
}
