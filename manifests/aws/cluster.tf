# The control plane

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  assume_role_policy = data.aws_iam_policy_document.cluster.json
}

data "aws_iam_policy_document" "cluster" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
}

# Made here, since EKS would make it without an end to what it keeps.
resource "aws_cloudwatch_log_group" "cluster" {
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = var.log_days
}

resource "aws_eks_cluster" "main" {
  #checkov:skip=CKV_AWS_339:its list of versions ends before this one
  name     = var.name
  version  = var.kubernetes_version
  role_arn = aws_iam_role.cluster.arn

  enabled_cluster_log_types = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  # The add-ons below are what it gets.
  bootstrap_self_managed_addons = false

  # At the end of a version's ordinary support EKS raises it, instead of the price to six times.
  upgrade_policy {
    support_type = "STANDARD"
  }

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = false
  }

  vpc_config {
    subnet_ids              = aws_subnet.nodes[*].id
    endpoint_private_access = true
    endpoint_public_access  = length(var.api_access) > 0
    public_access_cidrs     = length(var.api_access) > 0 ? var.api_access : null
  }

  encryption_config {
    resources = ["secrets"]

    provider {
      key_arn = aws_kms_key.main.arn
    }
  }

  depends_on = [aws_iam_role_policy_attachment.cluster, aws_cloudwatch_log_group.cluster]
}

resource "aws_eks_access_entry" "admin" {
  for_each = var.admins

  cluster_name  = aws_eks_cluster.main.name
  principal_arn = each.value
}

resource "aws_eks_access_policy_association" "admin" {
  for_each = var.admins

  cluster_name  = aws_eks_cluster.main.name
  principal_arn = aws_eks_access_entry.admin[each.value].principal_arn
  policy_arn    = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}

# The nodes

resource "aws_iam_role" "nodes" {
  name               = "${var.name}-nodes"
  assume_role_policy = data.aws_iam_policy_document.nodes.json
}

data "aws_iam_policy_document" "nodes" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy_attachment" "nodes" {
  # The last is the way in, by Session Manager: no port is open, and no key is handed out.
  for_each = toset([
    "AmazonEKSWorkerNodePolicy",
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonSSMManagedInstanceCore",
  ])

  role       = aws_iam_role.nodes.name
  policy_arn = "arn:aws:iam::aws:policy/${each.value}"
}

# It opens nothing: it says who is a node (pods have their node's groups), for the rules of the
# databases. The cluster's own group will not do for that: the control plane is in it too.
resource "aws_security_group" "nodes" {
  name        = "${var.name}-nodes"
  description = "Nodes and their pods"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "${var.name}-nodes" }
}

resource "aws_launch_template" "nodes" {
  name = "${var.name}-nodes"

  vpc_security_group_ids = [
    # Between nodes and control plane. The load balancer's controller opens it for its targets.
    aws_eks_cluster.main.vpc_config[0].cluster_security_group_id,
    aws_security_group.nodes.id,
  ]

  metadata_options {
    http_tokens = "required"
    # Pods are one hop further away, and have no business with the node's credentials.
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type = "gp3"
      volume_size = 30
      # With the account's own key: Auto Scaling has no right to ours.
      encrypted = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-node" }
  }
}

# The newest image for nodes of the cluster's version. An `apply` once a month replaces the nodes by
# it, one by one.
data "aws_ssm_parameter" "node_image" {
  name = "/aws/service/eks/optimized-ami/${var.kubernetes_version}/amazon-linux-2023/x86_64/standard/recommended/release_version"
}

data "aws_ec2_instance_type" "nodes" {
  for_each = toset(var.node_types)

  instance_type = each.value
}

# "Running On-Demand Standard instances", or "All Standard Spot Instance Requests": how many vCPUs the
# account may have.
data "aws_servicequotas_service_quota" "vcpus" {
  service_code = "ec2"
  quota_code   = var.spot ? "L-34B43A08" : "L-1216C47A"
}

locals {
  # One node more than usual, while they are replaced.
  vcpus = max([for type in data.aws_ec2_instance_type.nodes : type.default_vcpus]...) * (var.nodes + 1)
}

resource "aws_eks_node_group" "main" {
  cluster_name    = aws_eks_cluster.main.name
  node_group_name = "main"
  node_role_arn   = aws_iam_role.nodes.arn
  subnet_ids      = aws_subnet.nodes[*].id

  version         = aws_eks_cluster.main.version
  release_version = nonsensitive(data.aws_ssm_parameter.node_image.value)

  # As the image is built by `make build` on most machines.
  ami_type       = "AL2023_x86_64_STANDARD"
  instance_types = var.node_types
  capacity_type  = var.spot ? "SPOT" : "ON_DEMAND"

  scaling_config {
    min_size     = var.nodes
    desired_size = var.nodes
    max_size     = var.nodes + 1
  }

  update_config {
    max_unavailable = 1
  }

  launch_template {
    id      = aws_launch_template.nodes.id
    version = aws_launch_template.nodes.latest_version
  }

  depends_on = [
    aws_iam_role_policy_attachment.nodes,
    # A node is ready only with its network.
    aws_eks_addon.network,
    aws_eks_addon.pod_identity,
  ]

  # A fresh account may have 5. Without this, half of everything stands before EKS says so.
  lifecycle {
    precondition {
      condition     = data.aws_servicequotas_service_quota.vcpus.value >= local.vcpus
      error_message = "The nodes need ${local.vcpus} vCPUs, one node more than usual included, and this account may have ${data.aws_servicequotas_service_quota.vcpus.value} in ${var.region}. Ask for more: docs/deploy-eks.md, \"Before\"."
    }
  }
}

# The add-ons

locals {
  # Roles for service accounts: pod identity hands them out.
  pod_trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
    }]
  })
}

# The version that EKS pairs with the cluster's. Raising `kubernetes_version` raises these too.
data "aws_eks_addon_version" "main" {
  for_each = toset([
    "eks-pod-identity-agent",
    "vpc-cni",
    "kube-proxy",
    "coredns",
    "metrics-server",
    "aws-ebs-csi-driver",
  ])

  addon_name         = each.value
  kubernetes_version = var.kubernetes_version
}

resource "aws_eks_addon" "pod_identity" {
  cluster_name  = aws_eks_cluster.main.name
  addon_name    = "eks-pod-identity-agent"
  addon_version = data.aws_eks_addon_version.main["eks-pod-identity-agent"].version
}

resource "aws_iam_role" "network" {
  name               = "${var.name}-network"
  assume_role_policy = local.pod_trust
}

resource "aws_iam_role_policy_attachment" "network" {
  role       = aws_iam_role.network.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"
}

resource "aws_eks_addon" "network" {
  cluster_name  = aws_eks_cluster.main.name
  addon_name    = "vpc-cni"
  addon_version = data.aws_eks_addon_version.main["vpc-cni"].version
  # Without this, NetworkPolicies are accepted and ignored.
  configuration_values = jsonencode({ enableNetworkPolicy = "true" })

  pod_identity_association {
    role_arn        = aws_iam_role.network.arn
    service_account = "aws-node"
  }

  depends_on = [aws_iam_role_policy_attachment.network]
}

resource "aws_eks_addon" "kube_proxy" {
  cluster_name  = aws_eks_cluster.main.name
  addon_name    = "kube-proxy"
  addon_version = data.aws_eks_addon_version.main["kube-proxy"].version
}

resource "aws_eks_addon" "dns" {
  cluster_name  = aws_eks_cluster.main.name
  addon_name    = "coredns"
  addon_version = data.aws_eks_addon_version.main["coredns"].version

  depends_on = [aws_eks_node_group.main]
}

# The HorizontalPodAutoscaler asks it.
resource "aws_eks_addon" "metrics" {
  cluster_name  = aws_eks_cluster.main.name
  addon_name    = "metrics-server"
  addon_version = data.aws_eks_addon_version.main["metrics-server"].version

  depends_on = [aws_eks_node_group.main]
}

# Prometheus keeps its figures on a volume: storage.yaml.
resource "aws_iam_role" "volumes" {
  name               = "${var.name}-volumes"
  assume_role_policy = local.pod_trust
}

resource "aws_iam_role_policy_attachment" "volumes" {
  role       = aws_iam_role.volumes.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}

resource "aws_eks_addon" "volumes" {
  cluster_name  = aws_eks_cluster.main.name
  addon_name    = "aws-ebs-csi-driver"
  addon_version = data.aws_eks_addon_version.main["aws-ebs-csi-driver"].version

  pod_identity_association {
    role_arn        = aws_iam_role.volumes.arn
    service_account = "ebs-csi-controller-sa"
  }

  depends_on = [aws_eks_node_group.main, aws_iam_role_policy_attachment.volumes]
}

# The AWS Load Balancer Controller is installed by Helm, and its policy comes with its release:
# docs/deploy-eks.md.
resource "aws_iam_role" "load_balancer_controller" {
  name                  = "${var.name}-load-balancer-controller"
  assume_role_policy    = local.pod_trust
  force_detach_policies = true
}

resource "aws_eks_pod_identity_association" "load_balancer_controller" {
  cluster_name    = aws_eks_cluster.main.name
  namespace       = "kube-system"
  service_account = "aws-load-balancer-controller"
  role_arn        = aws_iam_role.load_balancer_controller.arn
}

# Fluent Bit, from Helm, brings what the pods write to CloudWatch.
resource "aws_cloudwatch_log_group" "pods" {
  name              = "/aws/eks/${var.name}/pods"
  retention_in_days = var.log_days
}

resource "aws_iam_role" "logs" {
  name               = "${var.name}-logs"
  assume_role_policy = local.pod_trust
}

resource "aws_iam_role_policy" "logs" {
  name = "logs"
  role = aws_iam_role.logs.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      Resource = "${aws_cloudwatch_log_group.pods.arn}:*"
    }]
  })
}

resource "aws_eks_pod_identity_association" "logs" {
  cluster_name    = aws_eks_cluster.main.name
  namespace       = "logging"
  service_account = "aws-for-fluent-bit"
  role_arn        = aws_iam_role.logs.arn
}
