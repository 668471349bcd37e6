# In each zone three subnets:
#   public  the load balancer and a NAT gateway, with a way from and to the internet
#   nodes   the cluster's nodes and pods, with a way out through the NAT gateway
#   data    PostgreSQL and Valkey, with no way out of the VPC at all

data "aws_availability_zones" "available" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones = slice(data.aws_availability_zones.available.names, 0, var.zones)
  nats  = var.nat_in_each_zone ? var.zones : 1
}

resource "aws_vpc" "main" {
  cidr_block           = var.cidr
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# What is in no other group may do nothing.
resource "aws_default_security_group" "main" {
  vpc_id = aws_vpc.main.id
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  count = var.zones

  vpc_id            = aws_vpc.main.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.cidr, 8, count.index)

  tags = {
    Name = "${var.name}-public-${local.zones[count.index]}"
    # Where the controller puts load balancers that face the internet.
    "kubernetes.io/role/elb" = "1"
  }
}

resource "aws_subnet" "nodes" {
  count = var.zones

  vpc_id            = aws_vpc.main.id
  availability_zone = local.zones[count.index]
  # Every pod has an address of its own: 4096 in each zone.
  cidr_block = cidrsubnet(var.cidr, 4, count.index + 1)

  tags = {
    Name                              = "${var.name}-nodes-${local.zones[count.index]}"
    "kubernetes.io/role/internal-elb" = "1"
  }
}

resource "aws_subnet" "data" {
  count = var.zones

  vpc_id            = aws_vpc.main.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.cidr, 8, count.index + 8)

  tags = { Name = "${var.name}-data-${local.zones[count.index]}" }
}

resource "aws_eip" "nat" {
  count = local.nats

  domain = "vpc"

  tags = { Name = "${var.name}-nat-${local.zones[count.index]}" }
}

resource "aws_nat_gateway" "main" {
  count = local.nats

  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.public[count.index].id

  tags = { Name = "${var.name}-${local.zones[count.index]}" }

  depends_on = [aws_internet_gateway.main]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "public" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

resource "aws_route_table_association" "public" {
  count = var.zones

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table" "nodes" {
  count = var.zones

  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-nodes-${local.zones[count.index]}" }
}

resource "aws_route" "nodes" {
  count = var.zones

  route_table_id         = aws_route_table.nodes[count.index].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.main[count.index % local.nats].id
}

resource "aws_route_table_association" "nodes" {
  count = var.zones

  subnet_id      = aws_subnet.nodes[count.index].id
  route_table_id = aws_route_table.nodes[count.index].id
}

# It has no route but the VPC's own.
resource "aws_route_table" "data" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.name}-data" }
}

resource "aws_route_table_association" "data" {
  count = var.zones

  subnet_id      = aws_subnet.data[count.index].id
  route_table_id = aws_route_table.data.id
}

# The layers of images are in S3; this way they cost nothing at the NAT gateway.
resource "aws_vpc_endpoint" "s3" {
  vpc_id          = aws_vpc.main.id
  service_name    = "com.amazonaws.${var.region}.s3"
  route_table_ids = aws_route_table.nodes[*].id

  tags = { Name = "${var.name}-s3" }
}
