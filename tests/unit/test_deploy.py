"""The files for Docker name commands, settings and metrics that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from streams.cli import app
from streams.metrics import Metrics
from streams.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "early-kill"}


def metric_names(text: str) -> set[str]:
    """The project's metrics in an expression, without the suffixes of histograms."""
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"performance_monitor_\w+", text)}


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_that_the_program_has(name: str):
    """With these very options; ``--help`` stops it from being carried out."""
    result = CliRunner().invoke(app, [*OURS[name]["command"], "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str):
    """A misspelt one would be ignored without a word."""
    fields = {f"EARLY_KILL_{field}".upper() for field in Settings.model_fields} | {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"}
    assert set(OURS[name]["environment"]) <= fields


@pytest.mark.parametrize("name", OURS)
def test_no_container_of_ours_can_do_more_than_it_has_to(name: str):
    """It writes no file, takes no right, and can use up neither memory nor processes."""
    service = OURS[name]
    assert service["read_only"]
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["ulimits"]["nofile"] >= 65_536
    assert "\nUSER early-kill\n" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_every_monitor_needs_a_token():
    """They listen on all addresses, where the API must not be open."""
    for name in ("monitor-0", "monitor-1"):
        environment = OURS[name]["environment"]
        assert environment["EARLY_KILL_WEB_HOST"] == "0.0.0.0"  # noqa: S104 -- inside a container
        assert ":?" in environment["EARLY_KILL_READ_TOKENS"]
        assert ":?" in environment["EARLY_KILL_OPERATE_TOKENS"]
        assert environment["EARLY_KILL_WEB_URL"] == f"http://{name}:6066"


def test_the_sink_needs_a_token():
    """It listens on all addresses too, for Prometheus."""
    environment = OURS["sink"]["environment"]
    assert environment["EARLY_KILL_WEB_HOST"] == "0.0.0.0"  # noqa: S104 -- inside a container
    assert ":?" in environment["EARLY_KILL_READ_TOKENS"]
    targets = [
        target for job in yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"] for group in job["static_configs"] for target in group["targets"]
    ]
    assert targets == ["monitor-0:6066", "monitor-1:6066", "sink:6065"]
    assert OURS["sink"]["command"][-1] == "6065"


def test_every_published_port_is_on_the_loopback_address():
    """Nothing of it is meant for the network as it is."""
    assert all(port.startswith("127.0.0.1:") for service in COMPOSE["services"].values() for port in service.get("ports", []))


def test_kafka_is_the_version_that_is_tested():
    """As in the embedded one."""
    assert COMPOSE["services"]["kafka"]["image"] == "apache/kafka:4.3.1"


def test_every_variable_that_is_needed_is_in_the_example():
    """``cp deploy/env.example .env`` is all there is to know."""
    needed = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert needed == set(re.findall(r"(?m)^(\w+)=", (ROOT / "deploy" / "env.example").read_text()))


def test_alerts_and_dashboard_use_metrics_that_exist():
    """A renamed metric would leave them silent."""
    metrics = Metrics()
    metrics.read("interaction", 1)
    there = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.registry.collect()}
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "early-kill.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())
    expressions += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert expressions
    for expression in expressions:
        assert metric_names(expression) <= there, expression
