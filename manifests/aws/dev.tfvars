# As cheap as it gets with everything in its place: one NAT gateway, spot nodes, small databases
# without a standby or a replica, and no data that outlives `terraform destroy`.
zones               = 2
nat_in_each_zone    = false
nodes               = 2
node_types          = ["t3.medium", "t3a.medium"]
spot                = true
database_class      = "db.t4g.micro"
database_storage    = 20
replicas            = 0
multi_az            = false
backup_days         = 1
log_days            = 7
budget              = 300
deletion_protection = false
cache_type          = "cache.t4g.micro"
cache_nodes         = 1
second_region       = ""
