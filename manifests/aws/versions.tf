terraform {
  # Write-only arguments, which keep passwords out of the state, came with 1.11.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.28"
    }
  }

  # The bucket, its region and the key are given to `terraform init`: docs/deploy-eks.md. The key is
  # the name of what is made, so that production and a cheap setup have a state each.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project = var.name
    }
  }
}

# What this state was made for. Another name or region in the file of variables, as that of another
# setup, would plan to make everything anew and to delete what there is; this stops the plan.
resource "terraform_data" "setup" {
  input = {
    name   = var.name
    region = var.region
  }

  lifecycle {
    ignore_changes = [input]

    postcondition {
      condition     = self.input.name == var.name && self.input.region == var.region
      error_message = "This state is that of ${self.input.name} in ${self.input.region}. Use the file of variables that belongs to it, or `terraform init -reconfigure` with the key of the other one."
    }
  }
}
