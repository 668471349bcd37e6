"""The cloud in manifests/aws: what must be true of it, and what has to fit the service.

The configuration is read as it is written, without Terraform. What Terraform itself has to say,
and its own tests, follow where it is installed.
"""

import re
import shutil
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

ROOT = Path(__file__).parents[2]
AWS = ROOT / "manifests" / "aws"
BASE = ROOT / "manifests" / "base"


def _plain(value: Any) -> Any:
    """A value as the parser has it, without quotes, and without what it says of itself."""
    if isinstance(value, dict):
        return {
            _plain(name): _plain(inner)
            for name, inner in value.items()
            if name not in ("__is_block__", "__comments__", "__inline_comments__")
        }
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r'^"(.*)"$|^\$\{(.*)\}$', r"\1\2", value, flags=re.S)
    return value


def _load(path: Path) -> dict[str, Any]:
    with path.open() as file:
        return _plain(hcl2.load(file))


FILES = {path.name: _load(path) for path in sorted(AWS.glob("*.tf"))}


def _resources(kind: str) -> dict[str, dict]:
    """The resources of a kind, by name."""
    found: dict[str, dict] = {}
    for block in chain.from_iterable(file.get("resource", []) for file in FILES.values()):
        found |= block.get(kind, {})
    return found


def _named(section: str) -> dict[str, dict]:
    """The variables, or the outputs."""
    blocks = chain.from_iterable(file.get(section, []) for file in FILES.values())
    return {name: body for block in blocks for name, body in block.items()}


DATABASES = _resources("aws_db_instance")
CACHE = _resources("aws_elasticache_replication_group")["main"]
VARIABLES = _named("variable")
OUTPUTS = _named("output")


def _default(name: str) -> Any:
    return VARIABLES[name]["default"]


def test_the_files_are_those_of_the_picture() -> None:
    assert {"network.tf", "cluster.tf", "database.tf", "cache.tf", "outputs.tf"} <= set(FILES)
    assert set(DATABASES) == {"primary", "replica"}
    assert set(_resources("aws_subnet")) == {"public", "nodes", "data"}


# Networks


def test_no_subnet_gives_public_addresses() -> None:
    for subnet in _resources("aws_subnet").values():
        assert "map_public_ip_on_launch" not in subnet


def test_only_public_subnets_have_a_route_to_the_internet_gateway() -> None:
    routes = _resources("aws_route")
    assert {name for name, route in routes.items() if "gateway_id" in route} == {"public"}
    assert routes["public"]["route_table_id"] == "aws_route_table.public.id"
    # Those of the databases have no route at all but the VPC's own.
    assert {route["route_table_id"] for route in routes.values()} == {
        "aws_route_table.public.id",
        "aws_route_table.nodes[count.index].id",
    }
    for name, association in _resources("aws_route_table_association").items():
        assert association["subnet_id"] == f"aws_subnet.{name}[count.index].id"
        assert association["route_table_id"].startswith(f"aws_route_table.{name}")
        assert not _resources("aws_route_table")[name].keys() & {"route"}


def test_databases_are_in_the_subnets_without_a_way_out() -> None:
    for kind in ("aws_db_subnet_group", "aws_elasticache_subnet_group"):
        assert _resources(kind)["main"]["subnet_ids"] == "aws_subnet.data[*].id"
    assert DATABASES["primary"]["db_subnet_group_name"] == "aws_db_subnet_group.main.name"
    assert CACHE["subnet_group_name"] == "aws_elasticache_subnet_group.main.name"
    for database in DATABASES.values():
        assert database["publicly_accessible"] is False


def test_nodes_are_private() -> None:
    group = _resources("aws_eks_node_group")["main"]
    cluster = _resources("aws_eks_cluster")["main"]["vpc_config"][0]
    assert group["subnet_ids"] == cluster["subnet_ids"] == "aws_subnet.nodes[*].id"
    assert cluster["endpoint_private_access"] is True
    assert cluster["endpoint_public_access"] == "length(var.api_access) > 0"
    assert _default("api_access") == []


# Security groups


def test_the_databases_are_reached_from_the_nodes_alone() -> None:
    rules = _resources("aws_vpc_security_group_ingress_rule")
    edges = {
        (
            rule["referenced_security_group_id"],
            rule["security_group_id"],
            rule["ip_protocol"],
            rule["from_port"],
            rule["to_port"],
        )
        for rule in rules.values()
    }
    nodes = "aws_security_group.nodes.id"
    assert edges == {
        (nodes, "aws_security_group.database.id", "tcp", 5432, 5432),
        (nodes, "aws_security_group.cache.id", "tcp", 6379, 6379),
    }
    for database in DATABASES.values():
        assert database["vpc_security_group_ids"] == ["aws_security_group.database.id"]
    assert CACHE["security_group_ids"] == ["aws_security_group.cache.id"]


def test_there_are_no_other_rules() -> None:
    assert set(_resources("aws_security_group")) == {"nodes", "database", "cache"}
    for kind in ("aws_security_group", "aws_default_security_group"):
        for group in _resources(kind).values():
            assert not group.keys() & {"ingress", "egress"}
    kinds = re.findall(r'resource "(\w+)"', "".join(path.read_text() for path in AWS.glob("*.tf")))
    rules = {kind for kind in kinds if "security_group" in kind and "rule" in kind}
    assert rules == {"aws_vpc_security_group_ingress_rule"}


def test_nodes_are_in_the_group_that_the_databases_let_in() -> None:
    template = _resources("aws_launch_template")["nodes"]
    assert "aws_security_group.nodes.id" in template["vpc_security_group_ids"]
    group = _resources("aws_eks_node_group")["main"]
    assert group["launch_template"][0]["id"] == "aws_launch_template.nodes.id"


# Encryption, and who may what


def _parameters(kind: str) -> dict[str, str]:
    return {p["name"]: p["value"] for p in _resources(kind)["main"]["parameter"]}


def test_what_is_stored_is_encrypted() -> None:
    key = "aws_kms_key.main.arn"
    for database in DATABASES.values():
        assert database["storage_encrypted"] is True
        assert database["kms_key_id"] == key
    assert CACHE["at_rest_encryption_enabled"] is True
    assert CACHE["kms_key_id"] == key
    repository = _resources("aws_ecr_repository")["hello"]
    assert repository["encryption_configuration"][0]["kms_key"] == key
    cluster = _resources("aws_eks_cluster")["main"]["encryption_config"][0]
    assert cluster["resources"] == ["secrets"]
    assert cluster["provider"][0]["key_arn"] == key
    for secret in _resources("aws_secretsmanager_secret").values():
        assert secret["kms_key_id"] == key
    disk = _resources("aws_launch_template")["nodes"]["block_device_mappings"][0]["ebs"][0]
    assert disk["encrypted"] is True
    assert _resources("aws_kms_key")["main"]["enable_key_rotation"] is True


def test_what_is_sent_is_encrypted() -> None:
    assert _parameters("aws_db_parameter_group")["rds.force_ssl"] == "1"
    for database in DATABASES.values():
        assert database["parameter_group_name"] == "aws_db_parameter_group.main.name"
    assert CACHE["transit_encryption_enabled"] is True
    assert CACHE["transit_encryption_mode"] == "required"
    assert CACHE["auth_token"] == "random_password.cache.result"
    secret = OUTPUTS["create_secret"]["value"]
    # `local.tls`, or what asks for encryption in another way.
    uris = re.findall(r'_URI="([^"]+)"', secret)
    assert len(uris) == 3
    for uri in uris:
        assert uri.startswith("rediss://") or uri.endswith("?${local.tls}")


def test_no_password_of_the_database_is_in_the_state() -> None:
    primary = DATABASES["primary"]
    assert primary["password_wo"] == "ephemeral.random_password.admin.result"
    assert not primary.keys() & {"password", "manage_master_user_password"}
    for version in _resources("aws_secretsmanager_secret_version").values():
        assert version["secret_string_wo"].startswith("ephemeral.random_password.")
        assert "secret_string" not in version
    # The cache's is, and is in no plan or output that is shown.
    assert OUTPUTS["create_secret"]["sensitive"] is True
    assert OUTPUTS["cache_uri"]["sensitive"] is True


def test_logs_do_not_quote_statements() -> None:
    parameters = _parameters("aws_db_parameter_group")
    assert parameters["log_min_error_statement"] == "panic"
    assert not parameters.keys() & {"log_statement", "log_min_duration_statement"}
    for database in DATABASES.values():
        assert "performance_insights_enabled" not in database


def test_access_entries_alone_say_who_may_use_the_cluster() -> None:
    access = _resources("aws_eks_cluster")["main"]["access_config"][0]
    assert access == {
        "authentication_mode": "API",
        "bootstrap_cluster_creator_admin_permissions": False,
    }
    assert _resources("aws_eks_access_entry")["admin"]["for_each"] == "var.admins"
    assert "default" not in VARIABLES["admins"]


# Losing nothing


def test_production_is_in_several_zones() -> None:
    assert DATABASES["primary"]["multi_az"] == "var.multi_az"
    assert _default("multi_az") is True
    assert _default("zones") == 3
    assert _default("nat_in_each_zone") is True
    assert CACHE["multi_az_enabled"] == "var.cache_nodes > 1"
    assert CACHE["automatic_failover_enabled"] == "var.cache_nodes > 1"
    assert _default("cache_nodes") == 2
    assert _default("replicas") == 1
    assert _default("spot") is False


def test_the_database_is_backed_up_and_not_deleted_by_mistake() -> None:
    primary = DATABASES["primary"]
    assert primary["backup_retention_period"] == "var.backup_days"
    assert _default("backup_days") >= 7
    assert _default("deletion_protection") is True
    for database in DATABASES.values():
        assert database["deletion_protection"] == "var.deletion_protection"
    assert primary["skip_final_snapshot"] == "!var.deletion_protection"


# What has to fit the service


def _manifest(name: str) -> dict:
    return yaml.safe_load((BASE / f"{name}.yaml").read_text())


def test_the_cache_is_one_that_the_service_can_use() -> None:
    # Its scripts touch several keys at once.
    assert CACHE["cluster_mode"] == "disabled"
    assert not CACHE.keys() & {"num_node_groups", "replicas_per_node_group"}
    assert _parameters("aws_elasticache_parameter_group") == {"maxmemory-policy": "allkeys-lru"}


def test_the_secret_has_what_the_service_reads() -> None:
    names = re.findall(r"--from-literal=(\w+)=", OUTPUTS["create_secret"]["value"])
    assert names == ["DB_URI", "DB_READ_URI", "CACHE_URI"]
    volume = _manifest("deployment")["spec"]["template"]["spec"]["volumes"][0]
    created = f"kubectl create secret generic {volume['secret']['secretName']} "
    assert created in OUTPUTS["create_secret"]["value"]


def test_the_certificates_are_where_the_uris_say() -> None:
    container = _manifest("deployment")["spec"]["template"]["spec"]["containers"][0]
    mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "database")
    assert f"sslrootcert={mount}/ca.pem" in (AWS / "outputs.tf").read_text()
    assert "--from-file=ca.pem" in OUTPUTS["create_secret"]["value"]


def test_pods_may_speak_to_what_there_is() -> None:
    egress = _manifest("networkpolicy")["spec"]["egress"]
    allowed = {port["port"] for rule in egress for port in rule["ports"]}
    rules = _resources("aws_vpc_security_group_ingress_rule").values()
    assert {rule["to_port"] for rule in rules} <= allowed
    # Without this, policies are not enforced on EKS.
    network = _resources("aws_eks_addon")["network"]
    assert "enableNetworkPolicy" in network["configuration_values"]


def test_the_registry_takes_what_is_pushed() -> None:
    pushed = re.findall(r"^image=\$org/(\w+):", (ROOT / "scripts/upload-prod").read_text(), re.M)
    assert pushed == [_resources("aws_ecr_repository")["hello"]["name"]]


def test_load_balancers_find_their_subnets() -> None:
    assert _resources("aws_subnet")["public"]["tags"]["kubernetes.io/role/elb"] == "1"
    association = _resources("aws_eks_pod_identity_association")["load_balancer_controller"]
    assert association["service_account"] == "aws-load-balancer-controller"


def test_the_autoscaler_has_something_to_ask() -> None:
    addons = _resources("aws_eks_addon").values()
    assert "metrics-server" in {addon["addon_name"] for addon in addons}


def test_dev_changes_what_there_is() -> None:
    assert _load(AWS / "dev.tfvars").keys() <= VARIABLES.keys()


# Where Terraform is installed


@pytest.fixture
def terraform() -> str:
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("needs terraform")
    return program


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=AWS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_terraform_would_format_it_no_other_way(terraform: str) -> None:
    _run(terraform, "fmt", "-check", "-diff", "-recursive")


@pytest.mark.skipif(
    not (AWS / ".terraform" / "providers").is_dir(),
    reason="needs `terraform -chdir=manifests/aws init -backend=false`, which fetches providers",
)
def test_terraform_finds_it_valid_and_its_own_tests_pass(terraform: str) -> None:
    _run(terraform, "validate", "-no-color")
    _run(terraform, "test", "-no-color")


# What is said of it


def _said() -> str:
    documents = [ROOT / "docs" / "deploy-eks.md", ROOT / "docs" / "runbook.md"]
    return "".join(path.read_text() for path in [*documents, AWS / "create-role"])


def test_documents_name_outputs_that_there_are() -> None:
    said = _said()
    outputs = set(re.findall(r"output -raw (\w+)|\$\(output (\w+)\)|\bsecret (\w+_secret)", said))
    names = {name for found in outputs for name in found if name}
    assert {"create_secret", "db_uri", "admin_secret"} <= names <= OUTPUTS.keys()


def test_documents_name_variables_that_there_are() -> None:
    named = re.findall(r"-var '?(\w+)=", _said())
    assert {"admins", "deletion_protection"} <= set(named) <= VARIABLES.keys()


def test_documents_name_resources_that_there_are() -> None:
    named = set(re.findall(r"(aws_\w+|random_\w+)\.(\w+)", _said()))
    assert ("aws_db_instance", "primary") in named
    for kind, name in named:
        assert name in _resources(kind)
