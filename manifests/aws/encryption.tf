# One key for everything that is stored: the databases and their backups, the cache, the images,
# the cluster's Secrets, the passwords. Its default policy leaves who may use it to IAM.
resource "aws_kms_key" "main" {
  description             = "${var.name}: everything that is stored"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_kms_alias" "main" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.main.key_id
}
