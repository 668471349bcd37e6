locals {
  service_role = "hello_${var.service_password_version % 2 == 1 ? 1 : 2}"
  # The certificates of RDS are signed by its own authority, which is mounted beside the URIs.
  tls      = "sslmode=verify-full&sslrootcert=/etc/hello/secrets/ca.pem"
  replicas = join(",", aws_db_instance.replica[*].address)
  # What every command that needs the service's password begins with.
  password = join(" ", [
    "password=$(aws secretsmanager get-secret-value --region ${var.region}",
    "--secret-id ${aws_secretsmanager_secret.service.arn} --query SecretString --output text)",
  ])
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
  value       = split("/", aws_ecr_repository.hello.repository_url)[0]
}

output "load_balancer_controller_role" {
  value = aws_iam_role.load_balancer_controller.name
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
  description = "The database as its administrator sees it, without a password."
  value       = "postgresql://${aws_db_instance.primary.username}@${aws_db_instance.primary.endpoint}/hello?sslmode=require"
}

output "service_role" {
  description = "The role in the database that the service uses now."
  value       = local.service_role
}

output "cache_uri" {
  value     = "rediss://:${random_password.cache.result}@${aws_elasticache_replication_group.main.primary_endpoint_address}:6379/0"
  sensitive = true
}

# eval "$(terraform output -raw create_secret)" makes the Secret `database`, or changes it. The
# passwords pass from AWS to kubectl, and are on no screen and in no file.
output "create_secret" {
  sensitive = true
  value     = <<-EOT
    ${local.password} &&
    curl --fail --silent --show-error --output ca.pem https://truststore.pki.rds.amazonaws.com/${var.region}/${var.region}-bundle.pem &&
    kubectl create secret generic database --dry-run=client --output=yaml \
        --from-literal=DB_URI="postgresql://${local.service_role}:$password@${aws_db_instance.primary.endpoint}/hello?${local.tls}" \
        %{~if var.replicas > 0~}
        --from-literal=DB_READ_URI="postgresql://${local.service_role}:$password@${local.replicas}/hello?${local.tls}" \
        %{~endif~}
        --from-literal=CACHE_URI="rediss://:${random_password.cache.result}@${aws_elasticache_replication_group.main.primary_endpoint_address}:6379/0" \
        --from-file=ca.pem | kubectl apply --filename=-
  EOT
}

# DB_URI="$(eval "$(terraform output -raw db_uri)")" scripts/e2e.sh
output "db_uri" {
  value = "${local.password} && echo \"postgresql://${local.service_role}:$password@${aws_db_instance.primary.endpoint}/hello?sslmode=require\""
}
