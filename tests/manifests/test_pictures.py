"""The pictures in docs/ are what their descriptions say."""

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hello.settings import Settings

ROOT = Path(__file__).parents[2]
DRAW = ROOT / "scripts" / "draw.py"
PICTURES = sorted((ROOT / "docs").glob("*.toml"))


def test_the_pictures_are_up_to_date() -> None:
    # Drawing an SVG needs nothing; each PNG says of which SVG it was made.
    command = [sys.executable, str(DRAW), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_picture_that_is_up_to_date_is_not_drawn_again(tmp_path: Path) -> None:
    # Another version of rsvg-convert would draw other bytes; there is none on this PATH.
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(DRAW, tmp_path / "scripts")
    files = [path for each in PICTURES for path in DRAW.parents[1].glob(f"docs/{each.stem}.*")]
    for path in files:
        shutil.copy(path, tmp_path / "docs")
    command = [sys.executable, str(tmp_path / "scripts" / DRAW.name)]
    done = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files) == 3 * len(PICTURES)
    for path in files:
        assert (tmp_path / "docs" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("description", PICTURES, ids=lambda path: path.stem)
def test_nothing_is_outside_the_picture(description: Path) -> None:
    svg = ElementTree.parse(description.with_suffix(".svg")).getroot()
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for rect in svg.iter("{http://www.w3.org/2000/svg}rect"):
        x, y = float(rect.attrib.get("x", 0)), float(rect.attrib.get("y", 0))
        assert x + float(rect.attrib["width"]) <= width
        assert y + float(rect.attrib["height"]) <= height
    for text in svg.iter("{http://www.w3.org/2000/svg}text"):
        assert float(text.attrib["y"]) < height


# The systems diagram, and what is in manifests/aws

SYSTEM = tomllib.loads((ROOT / "docs" / "systems-diagram.toml").read_text())
CONFIGURATION = "".join(
    path.read_text() for path in sorted((ROOT / "manifests" / "aws").glob("*.tf"))
)
MADE = {".".join(made) for made in re.findall(r'^resource "(\w+)" "(\w+)"', CONFIGURATION, re.M)}
DRAWN = {
    resource
    for kind in ("frame", "box")
    for thing in SYSTEM[kind]
    for resource in thing.get("resources", [])
}

#: What belongs to a thing that is drawn, and has no place of its own.
PARTS = {
    "aws_cloudwatch_event_rule": "what the alarm of backups counts",
    "aws_cloudwatch_event_target": "the rule's",
    "aws_cloudwatch_log_group": "logs",
    "aws_cloudwatch_log_resource_policy": "rights",
    "aws_db_parameter_group": "the database's settings",
    "aws_ecr_lifecycle_policy": "the registry's",
    "aws_eks_access_policy_association": "the access entry's",
    "aws_eks_addon": "pods of the cluster",
    "aws_eks_pod_identity_association": "rights of pods",
    "aws_elasticache_parameter_group": "the cache's settings",
    "aws_iam_role": "rights",
    "aws_iam_role_policy": "rights",
    "aws_iam_role_policy_attachment": "rights",
    "aws_route_table_association": "the subnets'",
    "aws_secretsmanager_secret_version": "the secrets'",
    "aws_sns_topic_policy": "rights",
    "aws_sns_topic_subscription": "the topic's",
    "aws_vpc_security_group_ingress_rule": "arrows; their ports are compared below",
    "terraform_data": "nothing of AWS",
}


def test_what_is_drawn_is_what_terraform_makes() -> None:
    assert DRAWN <= MADE
    kinds = {resource.split(".")[0] for resource in MADE}
    assert kinds - {resource.split(".")[0] for resource in DRAWN} <= PARTS.keys()
    assert PARTS.keys() <= kinds


def test_each_thing_inside_says_who_makes_it() -> None:
    inside = [box for box in SYSTEM["box"] if box["id"] not in ("client", "world", "operator")]
    assert len(inside) > 20
    for box in inside:
        assert ("resources" in box) is not ("by" in box), box["id"]


def test_the_addresses_in_the_picture_are_those_of_the_subnets() -> None:
    default = re.search(r'variable "cidr" \{.*?default += "([^"]+)"', CONFIGURATION, re.S)
    assert default is not None
    network = ip_network(default[1])
    expected = {f"VPC {network}"}
    for name in ("public", "nodes", "data"):
        subnet = re.search(
            rf'resource "aws_subnet" "{name}" \{{.*?cidrsubnet\(var\.cidr, (\d+), count\.index'
            r"(?: \+ (\d+))?\)",
            CONFIGURATION,
            re.S,
        )
        assert subnet is not None
        parts = list(network.subnets(prefixlen_diff=int(subnet[1])))
        first = int(subnet[2] or 0)
        expected |= {f"{name}, {part}" for part in parts[first : first + 3]}
    drawn = {thing["title"] for kind in ("frame", "note") for thing in SYSTEM[kind]}
    assert {title for title in drawn if re.search(r"\d/\d", title)} == expected


def test_each_rule_of_a_security_group_is_an_arrow() -> None:
    ports = set(re.findall(r"to_port += (\d+)", CONFIGURATION))
    labels = " ".join(arrow.get("label", "") for arrow in SYSTEM["arrow"])
    assert ports == {"5432", "6379"}
    assert ports <= set(re.findall(r"\d+", labels))


def test_every_number_is_explained_once() -> None:
    for description in PICTURES:
        picture = tomllib.loads(description.read_text())
        steps = sorted({arrow["step"] for arrow in picture.get("arrow", []) if "step" in arrow})
        for note in picture.get("note", []):
            if note.get("numbered"):
                assert steps == list(range(1, len(note["text"]) + 1)), description.name


# The path of a request


def test_the_figures_of_a_request_are_the_defaults_of_the_settings() -> None:
    said = re.findall(r"`([A-Z]+_[A-Z]+)` ([\d.]+)", (ROOT / "docs/request-path.toml").read_text())
    assert len(said) >= 8
    defaults = {
        field.metadata["name"]: field.default
        for field in fields(Settings)
        if "name" in field.metadata
    }
    for name, figure in said:
        assert defaults[name] == float(figure), name
