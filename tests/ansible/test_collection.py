"""The collection ``stoker.edge``: what it documents is what it does, and its files are ours."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stoker_agent.config import Config, parse_config
from stoker_cli.broker.configuration import access_list
from stoker_fleet.config import load_config as load_fleet_config
from support.documents import PROFILE
from support.environments import ROOT
from support.fleet_site import fleet_site
from support.simulated_device import SimulatedDevice

COLLECTION = ROOT / "ansible"
SYSTEMD = ROOT / "systemd"
ROLES = sorted(path.name for path in (COLLECTION / "roles").iterdir())

pytestmark = pytest.mark.timeout(600)  # the first run installs Ansible


def ansible(*arguments: str, cwd: Path = ROOT) -> str:
    """What a program of Ansible printed, with this collection installed."""
    command = [str(ROOT / "scripts" / "ansible"), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def document(role: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COLLECTION / "roles" / role / path).read_text())
    return found


@pytest.mark.parametrize("role", ROLES)
def test_the_documented_defaults_are_the_defaults(role: str) -> None:
    """An option has the same default in documentation and role, or has none and is required."""
    entry = document(role, "meta/argument_specs.yml")["argument_specs"]["main"]
    options = entry["options"]
    documented = {name: one["default"] for name, one in options.items() if "default" in one}
    required = {name for name, one in options.items() if one.get("required")}

    assert documented == document(role, "defaults/main.yml")
    assert required == options.keys() - documented.keys()


@pytest.mark.slow
def test_ansible_lint_has_nothing_to_say() -> None:
    """The strictest profile passes, without a rule that is switched off."""
    ansible("ansible-lint", "--offline", "--profile", "production", cwd=COLLECTION)
    assert not list(COLLECTION.glob(".ansible-lint*"))
    assert not [path for path in COLLECTION.rglob("*.yml") if "noqa" in path.read_text()]


@pytest.mark.slow
def test_the_installed_collection_carries_the_units(tmp_path: Path) -> None:
    """Built and installed without a network, it has every unit, and no link to our checkout."""
    ansible("ansible-galaxy", "collection", "build", str(COLLECTION), "--output-path", "built",
            cwd=tmp_path)  # fmt: skip
    (archive,) = (tmp_path / "built").iterdir()
    ansible("ansible-galaxy", "collection", "install", str(archive), "--offline", "--force",
            "-p", "installed", cwd=tmp_path)  # fmt: skip
    roles = tmp_path / "installed/ansible_collections/stoker/edge/roles"
    carried = {path.name: path for path in roles.glob("*/files/*")}

    for unit in (path for path in SYSTEMD.rglob("*") if path.is_file()):
        assert not carried[unit.name].is_symlink()
        assert carried[unit.name].read_bytes() == unit.read_bytes()


def rendered(template: str, folder: Path, **values: object) -> str:
    """A template of a role, as Ansible renders it with the role's defaults and some values."""
    role = template.split("/", maxsplit=1)[0]
    target = folder / "rendered"
    variables = folder / "variables.json"
    variables.write_text(json.dumps({**document(role, "defaults/main.yml"), **values}))
    ansible(
        "ansible", "localhost", "--connection", "local", "--extra-vars", f"@{variables}",
        "--module-name", "template", "--args",
        f"src={COLLECTION}/roles/{role}/templates/{template.split('/')[1]} dest={target}",
    )  # fmt: skip
    return target.read_text()


def agent_configuration(folder: Path, **values: object) -> Config:
    required = {
        "agent_fleet": "shop",
        "agent_broker_host": "broker.example.com",
        "agent_repository_url": "http://models.example.com:8080",
        "agent_device_id": "edge-1",
    }
    text = rendered("agent/agent.toml.j2", folder, **required, **values)
    return parse_config(text.encode(), where="agent.toml")


def test_the_agent_takes_the_configuration_that_the_role_writes(tmp_path: Path) -> None:
    """With all defaults, the file says what the agent would have taken anyway."""
    config = agent_configuration(tmp_path)
    tls, plain = config.mqtt.tls, Config.model_validate(
        {
            "device": {"id": "edge-1", "fleet": "shop"},
            "repository": {"url": "http://models.example.com:8080"},
            "mqtt": {"host": "broker.example.com"},
        }
    )  # fmt: skip

    assert tls is not None
    assert tls.certificate == tls.key
    mqtt = config.mqtt.model_copy(update={"tls": None})
    assert config.model_copy(update={"mqtt": mqtt}) == plain


def test_values_of_any_kind_arrive_as_they_are(tmp_path: Path) -> None:
    """Quotes, brackets and numbers in labels neither break the file nor change."""
    labels = {"site": 'a "quoted" \\ [site]', "rack": 7, "ring.one": "line\nbreak"}
    config = agent_configuration(tmp_path, agent_labels=labels, agent_allow_dev=True)

    assert config.device.labels == {name: str(value) for name, value in labels.items()}
    assert config.trust.allow_dev


def test_the_broker_has_the_access_list_of_the_development_broker(tmp_path: Path) -> None:
    """One list of who may do what, however the broker was set up."""

    def rules(text: str) -> list[str]:
        return [line for line in text.splitlines() if line]

    assert rules(rendered("broker/acl.j2", tmp_path)) == rules(access_list())


def test_the_controller_takes_the_configuration_that_the_role_writes(tmp_path: Path) -> None:
    """The file of the role fleet is one that the controller reads."""
    values = {"fleet_name": "shop", "fleet_broker_host": "broker.example.com"}
    path = tmp_path / "fleet.toml"
    path.write_text(rendered("fleet/fleet.toml.j2", tmp_path, **values))
    config = load_fleet_config(path)

    assert config.fleet == "shop"
    assert config.mqtt.tls is not None


@pytest.mark.slow
def test_the_inventory_is_what_the_fleet_knows(tmp_path: Path) -> None:
    """Every device that reported is a host, with its labels as groups."""
    with fleet_site(tmp_path) as site:
        site.start_controller()
        profile = PROFILE.model_copy(update={"labels": {"site": "berlin"}})
        device = SimulatedDevice(site.broker.port, "edge-1", profile=profile).start()
        try:
            site.wait_for("edge-1")
        finally:
            device.stop()
        source = tmp_path / "shop.stoker.yml"
        stoker = str(ROOT / ".venv" / "bin" / "stoker")
        options = {"command": [stoker], "config": str(site.config_path)}
        source.write_text(yaml.safe_dump({"plugin": "stoker.edge.fleet", **options}))
        listed = json.loads(ansible("ansible-inventory", "--inventory", str(source), "--list"))

    assert listed["stoker_devices"]["hosts"] == ["edge-1"]
    assert listed["stoker_site_berlin"]["hosts"] == ["edge-1"]


def test_an_inventory_that_can_not_be_read_says_why(tmp_path: Path) -> None:
    """The command that failed and what it said are in the error; nothing is an empty fleet."""
    source = tmp_path / "shop.stoker.yml"
    options = {"command": [str(ROOT / ".venv" / "bin" / "stoker")], "config": "/nowhere/fleet.toml"}
    source.write_text(yaml.safe_dump({"plugin": "stoker.edge.fleet", **options}))
    with pytest.raises(AssertionError, match=r"there is no /nowhere/fleet\.toml"):
        ansible("ansible-inventory", "--inventory", str(source), "--list")
