# The defaults are for production; dev.tfvars has what is cheap. What has none is what must be the
# same with every command, and is written once into a file that Terraform reads by itself:
# docs/deploy-eks.md.

variable "name" {
  description = "What everything is called, and begins with."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, at most 21."
  }
}

variable "region" {
  type = string
}

variable "admins" {
  description = "ARNs of the IAM roles or users that may do everything in the cluster. Nobody else may do anything, whoever creates it included."
  type        = set(string)

  validation {
    condition     = length(var.admins) > 0
    error_message = "Without an administrator nobody could use the cluster."
  }
}

variable "api_access" {
  description = "Networks (CIDR) from which kubectl may reach the cluster. None, []: from inside the VPC alone."
  type        = set(string)

  validation {
    condition     = !contains(var.api_access, "0.0.0.0/0")
    error_message = "Name the networks of your offices or of your VPN, not the whole internet."
  }
}

# Network

variable "cidr" {
  description = "The addresses of the VPC, a /16."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(regex("/16$", var.cidr)) && can(cidrhost(var.cidr, 0))
    error_message = "A /16, as 10.20.0.0/16."
  }
}

variable "zones" {
  description = "How many availability zones to use."
  type        = number
  default     = 3

  validation {
    condition     = var.zones == 2 || var.zones == 3
    error_message = "2 or 3: the cluster, the databases and the load balancer need two."
  }
}

variable "nat_in_each_zone" {
  description = "A NAT gateway in each zone; with false one serves all, and is missed by all when its zone fails."
  type        = bool
  default     = true
}

# Cluster

variable "kubernetes_version" {
  description = "One in standard support: `aws eks describe-cluster-versions`."
  type        = string
  default     = "1.36"
}

variable "node_types" {
  type    = list(string)
  default = ["m7i.xlarge"]
}

variable "nodes" {
  description = "How many nodes. With three of 4 cores, two still carry all the pods that the HorizontalPodAutoscaler may ask for."
  type        = number
  default     = 3

  validation {
    condition     = var.nodes >= 2
    error_message = "Two, so that one may be replaced."
  }
}

variable "spot" {
  description = "Nodes at a discount, which may be taken away at two minutes' notice."
  type        = bool
  default     = false
}

# Logs and money

variable "log_days" {
  description = "How long CloudWatch keeps logs. The control plane's tell who did what."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_days)
    error_message = "One of those that CloudWatch has: 7, 30, 90, 365, …"
  }
}

variable "owner" {
  description = "The address that is told of the alarms of the databases, and when the account costs more than `budget`."
  type        = string

  validation {
    condition     = can(regex("^[^@ ]+@[^@ ]+$", var.owner))
    error_message = "An address for mail."
  }
}

variable "budget" {
  description = "US dollars a month for the whole account."
  type        = number
  default     = 1700
}

# Database

variable "postgresql_version" {
  description = "The major version. RDS applies minor ones in the maintenance window."
  type        = string
  default     = "18"
}

variable "database_class" {
  description = "RDS allows one connection for each 9.5 MB of memory: some 840 here. A pod uses at most READ_LANES + 1 = 3 of the primary: docs/scaling.md."
  type        = string
  default     = "db.m7g.large"
}

variable "database_storage" {
  description = "GiB; grows by itself up to ten times as much."
  type        = number
  default     = 100
}

variable "replicas" {
  description = "Read replicas of the database."
  type        = number
  default     = 1

  validation {
    condition     = var.replicas >= 0 && var.replicas <= 15
    error_message = "RDS allows 15."
  }
}

variable "multi_az" {
  description = "A standby of the primary in another zone, which receives every commit before it is acknowledged and takes over by itself."
  type        = bool
  default     = true
}

variable "backup_days" {
  description = "Days to any second of which the database can be restored."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "1 to 35. Without backups there are no replicas either."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the database, and keep a last snapshot if it is allowed after all."
  type        = bool
  default     = true
}

variable "admin_password_version" {
  description = "Raise it for a new password of the database's administrator."
  type        = number
  default     = 1
}

variable "service_password_version" {
  description = "Raise it by one for a new password of the service. Odd numbers are the role hello_1, even ones hello_2, so that the old one works until it is revoked."
  type        = number
  default     = 1
}

# Cache

variable "valkey_version" {
  description = "Of the major version that the tests use."
  type        = string
  default     = "9.1"
}

variable "cache_type" {
  type    = string
  default = "cache.m7g.large"
}

variable "cache_nodes" {
  description = "1, or a primary with replicas in other zones that take over."
  type        = number
  default     = 2

  validation {
    condition     = var.cache_nodes >= 1 && var.cache_nodes <= 6
    error_message = "A primary and at most five replicas."
  }
}

variable "cache_password_version" {
  description = "Raise it for a new password of the cache, with `cache_password_rotates`."
  type        = number
  default     = 1
}

variable "cache_password_rotates" {
  description = "While true, the cache takes the password before the newest as well. With false only the newest."
  type        = bool
  default     = false
}
