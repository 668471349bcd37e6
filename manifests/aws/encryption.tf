# One key for everything that is stored: the databases and their backups, the cache, the images,
# the cluster's Secrets, the passwords. Its default policy leaves who may use it to IAM.
resource "aws_kms_key" "main" {
  description             = "${var.name}: everything that is stored"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  # Without it no snapshot of the database can be read again, the last one included, and there is
  # no way back. docs/deploy-eks.md says how the rest is torn down.
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "main" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.main.key_id
}
