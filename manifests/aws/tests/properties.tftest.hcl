# `terraform init -backend=false && terraform test`, logged in at AWS, or at something that answers as
# AWS does: the provider asks who it is, and for zones and random passwords. Everything is planned and
# nothing is created; what only creating would tell is said here.
# In a tree without a file of variables of its own, which would be read too.

override_data {
  target          = data.aws_availability_zones.available
  override_during = plan
  values          = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
}

override_data {
  target          = data.aws_ec2_instance_type.nodes
  override_during = plan
  values          = { default_vcpus = 4 }
}

# Exactly what three nodes of four and one more need.
override_data {
  target          = data.aws_servicequotas_service_quota.vcpus
  override_during = plan
  values          = { value = 16 }
}

override_data {
  target          = data.aws_ssm_parameter.node_image
  override_during = plan
  values          = { value = "1.36.0-20261101" }
}

override_data {
  target          = data.aws_eks_addon_version.main
  override_during = plan
  values          = { version = "v1.0.0-eksbuild.1" }
}

override_data {
  target          = data.aws_secretsmanager_secret_version.cache
  override_during = plan
  values          = { secret_string = "that-of-the-cache" }
}

override_resource {
  target          = aws_kms_key.main
  override_during = plan
  values          = { arn = "arn:aws:kms:eu-central-1:111122223333:key/0", key_id = "0" }
}

override_resource {
  target          = aws_kms_key.second
  override_during = plan
  values          = { arn = "arn:aws:kms:eu-west-1:111122223333:key/1", key_id = "1" }
}

override_resource {
  target          = aws_sns_topic.alarms
  override_during = plan
  values          = { arn = "arn:aws:sns:eu-central-1:111122223333:hello-alarms" }
}

override_resource {
  target          = aws_secretsmanager_secret.admin
  override_during = plan
  values          = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:admin" }
}

override_resource {
  target          = aws_secretsmanager_secret.service
  override_during = plan
  values          = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:service" }
}

override_resource {
  target          = aws_secretsmanager_secret.cache
  override_during = plan
  values          = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:cache" }
}

override_resource {
  target          = aws_subnet.public
  override_during = plan
  values          = { id = "subnet-public" }
}

override_resource {
  target          = aws_subnet.nodes
  override_during = plan
  values          = { id = "subnet-nodes" }
}

override_resource {
  target          = aws_subnet.data
  override_during = plan
  values          = { id = "subnet-data" }
}

override_resource {
  target          = aws_route_table.public
  override_during = plan
  values          = { id = "rtb-public" }
}

override_resource {
  target          = aws_security_group.nodes
  override_during = plan
  values          = { id = "sg-nodes" }
}

override_resource {
  target          = aws_security_group.database
  override_during = plan
  values          = { id = "sg-database" }
}

override_resource {
  target          = aws_security_group.cache
  override_during = plan
  values          = { id = "sg-cache" }
}

override_resource {
  target          = aws_eks_cluster.main
  override_during = plan
  values          = { vpc_config = { cluster_security_group_id = "sg-cluster" } }
}

override_resource {
  target          = aws_db_instance.primary
  override_during = plan
  values = {
    arn      = "arn:aws:rds:eu-central-1:111122223333:db:hello-primary"
    endpoint = "hello-primary.mock:5432"
  }
}

override_resource {
  target          = aws_db_instance.replica
  override_during = plan
  values          = { address = "hello-replica.mock" }
}

override_resource {
  target          = aws_elasticache_replication_group.main
  override_during = plan
  values          = { primary_endpoint_address = "hello-cache.mock" }
}

variables {
  name       = "hello"
  region     = "eu-central-1"
  admins     = ["arn:aws:iam::111122223333:role/admin"]
  api_access = []
  owner      = "owner@example.com"
}

run "production" {
  command = plan

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
    condition     = aws_db_instance.primary.deletion_protection && !aws_db_instance.primary.skip_final_snapshot && aws_db_instance.replica[0].deletion_protection != true
    error_message = "The database must not be deleted by mistake, and its replica may."
  }

  assert {
    condition     = aws_db_instance.primary.backup_retention_period >= 7
    error_message = "A mistake may be noticed after a week."
  }

  assert {
    condition     = length(aws_db_instance.replica) == 1
    error_message = "The picture has a read replica."
  }

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

  assert {
    condition     = aws_elasticache_replication_group.main.auth_token_update_strategy == "SET"
    error_message = "Only one password of the cache works, unless it is being changed."
  }

  assert {
    condition = alltrue([
      for database in concat([aws_db_instance.primary], aws_db_instance.replica) : database.storage_encrypted
    ]) && aws_db_instance.primary.kms_key_id == aws_kms_key.main.arn
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
    condition     = anytrue([for p in aws_db_parameter_group.main.parameter : p.name == "log_error_verbosity" && p.value == "terse"])
    error_message = "Nor may it quote rows."
  }

  assert {
    condition = (
      aws_elasticache_replication_group.main.transit_encryption_enabled &&
      aws_elasticache_replication_group.main.transit_encryption_mode == "required" &&
      tobool(aws_elasticache_replication_group.main.at_rest_encryption_enabled)
    )
    error_message = "The cache is encrypted, and speaks TLS."
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

  assert {
    condition     = aws_eks_node_group.main.version == var.kubernetes_version && length(aws_eks_node_group.main.release_version) > 0
    error_message = "The nodes have the cluster's version, and an image that is named."
  }

  assert {
    condition = alltrue([
      for addon in [aws_eks_addon.pod_identity, aws_eks_addon.network, aws_eks_addon.kube_proxy, aws_eks_addon.dns, aws_eks_addon.metrics, aws_eks_addon.volumes] :
      addon.addon_version == data.aws_eks_addon_version.main[addon.addon_name].version
    ])
    error_message = "An add-on has the version that belongs to it."
  }

  assert {
    condition     = aws_eks_cluster.main.upgrade_policy[0].support_type == "STANDARD" && aws_db_instance.primary.engine_lifecycle_support == "open-source-rds-extended-support-disabled"
    error_message = "Extended support is paid for by the hour."
  }

  assert {
    condition = (
      aws_db_instance_automated_backups_replication.main[0].source_db_instance_arn == aws_db_instance.primary.arn &&
      aws_db_instance_automated_backups_replication.main[0].kms_key_id == aws_kms_key.second[0].arn &&
      aws_db_instance_automated_backups_replication.main[0].retention_period == aws_db_instance.primary.backup_retention_period
    )
    error_message = "The backups are kept in the second region as long as here, with a key of that region."
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.storage), values(aws_cloudwatch_metric_alarm.connections), [aws_cloudwatch_metric_alarm.backup]) :
      alarm.alarm_actions == toset([aws_sns_topic.alarms.arn]) && alarm.ok_actions == alarm.alarm_actions
    ])
    error_message = "Every alarm goes to the topic."
  }

  assert {
    condition = (
      aws_sns_topic_subscription.owner.topic_arn == aws_sns_topic.alarms.arn &&
      aws_sns_topic_subscription.owner.protocol == "email" && aws_sns_topic_subscription.owner.endpoint == "owner@example.com"
    )
    error_message = "The owner is told by mail."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.connections["primary"].threshold == 540
    error_message = "A db.m7g.large has 8 GiB: 901 connections at most, and 540 are six tenths."
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.backup.event_pattern).detail.SourceIdentifier == ["hello-primary"]
    error_message = "The backups of the primary are what is counted."
  }
}

run "other_values" {
  command = plan

  variables {
    service_password_version = 2
    cache_password_version   = 2
    cache_password_rotates   = true
    replicas                 = 2
    log_days                 = 30
  }

  assert {
    condition     = strcontains(output.create_secret, "DB_URI=<(printf %s \"postgresql://hello_2:$service@")
    error_message = "Even versions of the password are those of hello_2."
  }

  assert {
    condition     = length(regexall("DB_READ_URI=<\\(printf %s \"postgresql://hello_2:\\$service@[^,/]+,[^,/]+/hello\\?sslmode=verify-full", output.create_secret)) == 1
    error_message = "DB_READ_URI has both replicas."
  }

  assert {
    condition     = strcontains(output.create_secret, "CACHE_URI=<(printf %s \"rediss://:$cache@") && !strcontains(output.create_secret, "that-of-the-cache")
    error_message = "The cache is spoken to with TLS, and its password is read when it is needed."
  }

  assert {
    condition = keys(aws_cloudwatch_log_group.database) == [
      "primary/postgresql", "primary/upgrade",
      "replica-1/postgresql", "replica-1/upgrade",
      "replica-2/postgresql", "replica-2/upgrade",
    ]
    error_message = "Each log of each database has a group that was made here."
  }

  assert {
    condition = alltrue([
      for group in concat([aws_cloudwatch_log_group.cluster, aws_cloudwatch_log_group.pods], values(aws_cloudwatch_log_group.database)) :
      group.retention_in_days == 30
    ])
    error_message = "Logs are kept for as long as was said."
  }

  assert {
    condition     = aws_elasticache_replication_group.main.auth_token_update_strategy == "ROTATE"
    error_message = "Both passwords work while pods have the old one, and one does afterwards."
  }

  assert {
    condition = alltrue([
      for alarms in [aws_cloudwatch_metric_alarm.storage, aws_cloudwatch_metric_alarm.connections] :
      toset([for alarm in alarms : alarm.dimensions.DBInstanceIdentifier]) == toset(["hello-primary", "hello-replica-1", "hello-replica-2"])
    ])
    error_message = "Storage and connections of every database are watched."
  }
}

run "development" {
  command = plan

  variables {
    zones               = 2
    nat_in_each_zone    = false
    replicas            = 0
    multi_az            = false
    database_class      = "db.t4g.micro"
    deletion_protection = false
    cache_nodes         = 1
    second_region       = ""
    api_access          = ["198.51.100.0/24"]
  }

  assert {
    condition     = length(aws_nat_gateway.main) == 1 && length(aws_route.nodes) == 2
    error_message = "One NAT gateway serves both zones."
  }

  assert {
    condition     = !strcontains(output.create_secret, "DB_READ_URI")
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

  assert {
    condition     = length(aws_db_instance_automated_backups_replication.main) == 0 && length(aws_kms_key.second) == 0 && output.second_key == ""
    error_message = "Without a second region there is no second copy."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.connections["primary"].threshold == 67
    error_message = "A db.t4g.micro has 1 GiB."
  }
}

run "the_same_region_twice" {
  command = plan

  variables {
    second_region = "eu-central-1"
  }

  expect_failures = [var.second_region]
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

run "too_few_vcpus" {
  command = plan

  variables {
    nodes = 4
  }

  expect_failures = [aws_eks_node_group.main]
}

run "state_of_this_setup" {
  plan_options {
    target = [terraform_data.setup]
  }
}

run "state_of_another_setup" {
  command = plan

  variables {
    name = "hello-dev"
  }

  expect_failures = [terraform_data.setup]
}

run "state_of_another_region" {
  command = plan

  variables {
    region = "eu-north-1"
  }

  expect_failures = [terraform_data.setup]
}
