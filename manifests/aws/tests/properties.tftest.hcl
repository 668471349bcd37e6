# `terraform init -backend=false && terraform test`. AWS is mocked: nothing is created, and no account
# is needed. Only the provider's schema and Terraform's own evaluation are real.

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

# Alarms and the second region: alarms.tftest.hcl.
mock_provider "aws" {
  alias = "second"

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:111122223333:key/1" }
  }
}

variables {
  admins = ["arn:aws:iam::111122223333:role/admin"]
}

run "production" {
  assert {
    condition     = length(aws_subnet.nodes) == 3 && length(aws_subnet.data) == 3 && length(aws_nat_gateway.main) == 3
    error_message = "Production has three zones, each with its NAT gateway."
  }

  assert {
    condition     = length(distinct(concat(aws_subnet.public[*].cidr_block, aws_subnet.nodes[*].cidr_block, aws_subnet.data[*].cidr_block))) == 9
    error_message = "Two subnets have the same addresses."
  }

  assert {
    condition     = aws_db_instance.primary.multi_az && aws_elasticache_replication_group.main.multi_az_enabled
    error_message = "Somebody must take over when a zone fails."
  }

  assert {
    condition     = aws_db_instance.primary.deletion_protection && !aws_db_instance.primary.skip_final_snapshot && aws_db_instance.replica[0].deletion_protection
    error_message = "The database must not be deleted by mistake."
  }

  assert {
    condition     = aws_db_instance.primary.backup_retention_period >= 7
    error_message = "A mistake may be noticed after a week."
  }

  assert {
    condition     = length(aws_db_instance.replica) == 1
    error_message = "The picture has a read replica."
  }
}

run "private" {
  assert {
    condition     = alltrue([for subnet in concat(aws_subnet.public, aws_subnet.nodes, aws_subnet.data) : subnet.map_public_ip_on_launch != true])
    error_message = "Nothing gets a public address by itself."
  }

  assert {
    condition     = !aws_db_instance.primary.publicly_accessible && !aws_db_instance.replica[0].publicly_accessible
    error_message = "The database must not be public."
  }

  assert {
    condition     = aws_route.public.route_table_id == aws_route_table.public.id && alltrue([for route in aws_route.nodes : route.gateway_id == null || route.gateway_id == ""])
    error_message = "Only the public subnets have a route to the internet gateway."
  }

  assert {
    condition     = toset(aws_db_subnet_group.main.subnet_ids) == toset(aws_subnet.data[*].id) && toset(aws_elasticache_subnet_group.main.subnet_ids) == toset(aws_subnet.data[*].id)
    error_message = "The databases are in the data subnets."
  }

  assert {
    condition     = aws_eks_node_group.main.subnet_ids == toset(aws_subnet.nodes[*].id)
    error_message = "The nodes are in private subnets."
  }

  assert {
    condition     = !aws_eks_cluster.main.vpc_config[0].endpoint_public_access && aws_eks_cluster.main.vpc_config[0].endpoint_private_access
    error_message = "Unless networks are named, the cluster is reached from inside alone."
  }
}

run "edges" {
  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.database.referenced_security_group_id == aws_security_group.nodes.id &&
      aws_vpc_security_group_ingress_rule.database.security_group_id == aws_security_group.database.id &&
      aws_vpc_security_group_ingress_rule.database.from_port == 5432 && aws_vpc_security_group_ingress_rule.database.to_port == 5432
    )
    error_message = "PostgreSQL is reached from the nodes, on its port."
  }

  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.cache.referenced_security_group_id == aws_security_group.nodes.id &&
      aws_vpc_security_group_ingress_rule.cache.security_group_id == aws_security_group.cache.id &&
      aws_vpc_security_group_ingress_rule.cache.from_port == 6379 && aws_vpc_security_group_ingress_rule.cache.to_port == 6379
    )
    error_message = "Valkey is reached from the nodes, on its port."
  }

  assert {
    condition = alltrue([
      for database in concat([aws_db_instance.primary], aws_db_instance.replica) :
      database.vpc_security_group_ids == toset([aws_security_group.database.id])
    ])
    error_message = "The databases are in their group and in no other."
  }

  assert {
    condition     = aws_elasticache_replication_group.main.security_group_ids == toset([aws_security_group.cache.id])
    error_message = "The cache is in its group and in no other."
  }

  assert {
    condition     = contains(aws_launch_template.nodes.vpc_security_group_ids, aws_security_group.nodes.id)
    error_message = "The nodes are in the group that the databases let in."
  }
}

run "encryption" {
  assert {
    condition = alltrue([
      for database in concat([aws_db_instance.primary], aws_db_instance.replica) :
      database.storage_encrypted && database.kms_key_id == aws_kms_key.main.arn
    ])
    error_message = "The databases are encrypted."
  }

  assert {
    condition     = anytrue([for p in aws_db_parameter_group.main.parameter : p.name == "rds.force_ssl" && p.value == "1"])
    error_message = "PostgreSQL must refuse connections without TLS."
  }

  assert {
    condition     = anytrue([for p in aws_db_parameter_group.main.parameter : p.name == "log_min_error_statement" && p.value == "panic"])
    error_message = "The log must not quote statements: they hold personal data."
  }

  assert {
    condition = (
      aws_elasticache_replication_group.main.transit_encryption_enabled &&
      aws_elasticache_replication_group.main.transit_encryption_mode == "required" &&
      tobool(aws_elasticache_replication_group.main.at_rest_encryption_enabled) &&
      length(aws_elasticache_replication_group.main.auth_token) >= 16
    )
    error_message = "The cache speaks TLS, and asks for a password."
  }

  assert {
    condition     = aws_elasticache_replication_group.main.cluster_mode == "disabled"
    error_message = "The service's scripts need a Valkey that is not clustered."
  }

  assert {
    condition     = aws_eks_cluster.main.access_config[0].authentication_mode == "API" && !aws_eks_cluster.main.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "Access entries alone say who may use the cluster."
  }

  assert {
    condition     = aws_launch_template.nodes.metadata_options[0].http_tokens == "required" && aws_launch_template.nodes.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Pods must not reach the nodes' credentials."
  }

  assert {
    condition     = aws_kms_key.main.enable_key_rotation && aws_ecr_repository.hello.image_tag_mutability == "IMMUTABLE"
    error_message = "Keys rotate, and tags stay."
  }
}

run "secret" {
  variables {
    service_password_version = 2
    replicas                 = 2
  }

  assert {
    condition     = strcontains(nonsensitive(output.create_secret), "DB_URI=\"postgresql://hello_2:$password@")
    error_message = "Even versions of the password are those of hello_2."
  }

  assert {
    condition     = length(regexall("DB_READ_URI=\"postgresql://hello_2:\\$password@[^,/]+,[^,/]+/hello\\?sslmode=verify-full", nonsensitive(output.create_secret))) == 1
    error_message = "DB_READ_URI has both replicas."
  }

  assert {
    condition     = strcontains(nonsensitive(output.create_secret), "CACHE_URI=\"rediss://:")
    error_message = "The cache is spoken to with TLS."
  }
}

run "development" {
  variables {
    zones               = 2
    nat_in_each_zone    = false
    replicas            = 0
    multi_az            = false
    deletion_protection = false
    cache_nodes         = 1
    api_access          = ["198.51.100.0/24"]
  }

  assert {
    condition     = length(aws_nat_gateway.main) == 1 && length(aws_route.nodes) == 2
    error_message = "One NAT gateway serves both zones."
  }

  assert {
    condition     = !strcontains(nonsensitive(output.create_secret), "DB_READ_URI")
    error_message = "Without a replica there is no DB_READ_URI."
  }

  assert {
    condition     = aws_db_instance.primary.storage_encrypted && aws_elasticache_replication_group.main.transit_encryption_enabled
    error_message = "What is cheap is encrypted all the same."
  }

  assert {
    condition     = aws_eks_cluster.main.vpc_config[0].endpoint_public_access && aws_eks_cluster.main.vpc_config[0].public_access_cidrs == toset(["198.51.100.0/24"])
    error_message = "kubectl is let in from the networks that are named."
  }
}

run "open_to_the_internet" {
  command = plan

  variables {
    api_access = ["0.0.0.0/0"]
  }

  expect_failures = [var.api_access]
}

run "nobody" {
  command = plan

  variables {
    admins = []
  }

  expect_failures = [var.admins]
}
