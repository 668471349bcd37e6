# `make org="$(terraform output -raw registry)" upload-prod` pushes to the repository `hello` there.
# Its name begins with that of the setup, since an account has one registry for all of them.
resource "aws_ecr_repository" "hello" {
  name                 = "${var.name}/hello"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = !var.deletion_protection

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.main.arn
  }
}

resource "aws_ecr_lifecycle_policy" "hello" {
  repository = aws_ecr_repository.hello.name

  # The Deployment keeps five releases to go back to.
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "the last 50 images"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 50 }
      action       = { type = "expire" }
    }]
  })
}
