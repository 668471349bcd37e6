locals {
  service_role = "hello_${var.service_password_version % 2 == 1 ? 1 : 2}"
  # The certificates of RDS are signed by its own authority, which is mounted beside the URIs.
  tls         = "sslmode=verify-full&sslrootcert=/etc/hello/secrets/ca.pem"
  authorities = "https://truststore.pki.rds.amazonaws.com/${var.region}/${var.region}-bundle.pem"
  # A replica that is being made anew has no address for a while.
  replicas = join(",", compact(aws_db_instance.replica[*].address))
  database = aws_db_instance.primary.endpoint
  cache    = "${aws_elasticache_replication_group.main.primary_endpoint_address}:6379/0"
  # What the Secret has, with the names of shell variables in place of passwords.
  uris = merge(
    {
      CACHE_URI = "rediss://:$cache@${local.cache}"
      DB_URI    = "postgresql://${local.service_role}:$service@${local.database}/hello?${local.tls}"
    },
    var.replicas == 0 ? {} : {
      DB_READ_URI = "postgresql://${local.service_role}:$service@${local.replicas}/hello?${local.tls}"
    },
  )
  # The commands that print a password.
  reads = {
    for name, secret in { service = aws_secretsmanager_secret.service, cache = aws_secretsmanager_secret.cache } :
    name => "aws secretsmanager get-secret-value --region ${var.region} --secret-id ${secret.arn} --query SecretString --output text"
  }
}

output "name" {
  value = var.name
}

output "cluster" {
  value = aws_eks_cluster.main.name
}

output "region" {
  value = var.region
}

output "vpc" {
  value = aws_vpc.main.id
}

output "registry" {
  description = "make org=… upload-prod"
  value       = trimsuffix(aws_ecr_repository.hello.repository_url, "/hello")
}

output "load_balancer_controller_role" {
  value = aws_iam_role.load_balancer_controller.name
}

output "pod_logs" {
  description = "Where CloudWatch has what the pods write."
  value       = aws_cloudwatch_log_group.pods.name
}

output "key" {
  description = "What encrypts the snapshots. It outlives them all: docs/deploy-eks.md."
  value       = aws_kms_key.main.key_id
}

output "second_key" {
  description = "What encrypts the backups in the second region; empty if there is none."
  value       = join("", aws_kms_key.second[*].key_id)
}

output "admin_secret" {
  description = "Where the password of the database's administrator is."
  value       = aws_secretsmanager_secret.admin.arn
}

output "service_secret" {
  description = "Where the service's password is."
  value       = aws_secretsmanager_secret.service.arn
}

output "admin_uri" {
  description = "The database as its administrator sees it, without a password. The authorities of RDS's certificates are looked for where PGSSLROOTCERT says."
  value       = "postgresql://${aws_db_instance.primary.username}@${local.database}/hello?sslmode=verify-full"
}

output "service_role" {
  description = "The role in the database that the service uses now."
  value       = local.service_role
}

output "authorities" {
  description = "Where RDS publishes the authorities that sign its certificates."
  value       = local.authorities
}

output "cache_uri" {
  value     = "rediss://:${data.aws_secretsmanager_secret_version.cache.secret_string}@${local.cache}"
  sensitive = true
}

# eval "$(terraform output -raw create_secret)" makes the Secret `database`, or changes it. The
# passwords pass from AWS to kubectl through pipes: they are on no screen, in no file, and in no
# command line, which everybody on the machine could read.
output "create_secret" {
  value = <<-EOT
    bash -euo pipefail <<'BASH'
    service=$(${local.reads.service})
    cache=$(${local.reads.cache})
    curl --fail --silent --show-error --output ca.pem ${local.authorities}
    kubectl create secret generic database --dry-run=client --output=yaml --from-file=ca.pem \
        ${join(" ", [for name, uri in local.uris : "--from-file=${name}=<(printf %s \"${uri}\")"])} |
        kubectl apply --filename=-
    BASH
  EOT
}

# DB_URI="$(eval "$(terraform output -raw db_uri)")" scripts/e2e.sh
output "db_uri" {
  value = "password=$(${local.reads.service}) && echo \"postgresql://${local.service_role}:$password@${local.database}/hello?sslmode=require\""
}
