"""The dashboard, the alerts and the documentation speak of metrics that there are."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from genesis_flow.cli.server_metrics import host_and_port
from genesis_flow.metrics import DEFAULT_PORT, exporter, state
from genesis_flow.mongo import counting
from tools import gen_dashboard, prometheus

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
_METRIC = re.compile(r"\bgenesis_flow_\w+")


def exported() -> dict[str, set[str]]:
    """The names of all series that there can be, and their labels."""
    known: dict[str, set[str]] = {name: {*labels} for name, _, labels in state.GAUGES}
    known["genesis_flow_database_failovers_total"] = set()
    known["genesis_flow_processes"] = set()
    known["genesis_flow_build_info"] = {"version", "mlflow", "pymongo", "python"}
    for metric in vars(counting).values():
        if not hasattr(metric, "_labelnames"):
            continue
        labels, kind = {*metric._labelnames}, metric._type
        endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[kind]
        for ending in endings:
            known[metric._name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return known


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(prometheus.RULES.read_text())["groups"]
    return list(group["rules"])


def queries() -> list[str]:
    panels = [query for panel in gen_dashboard.panels() for query in panel.queries.values()]
    return [*panels, *(rule["expr"] for rule in rules())]


def tool(name: str) -> str:
    found = prometheus.find(name)
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"{name} is not installed: tools/prometheus.py finds it")
    assert found is not None, f"{name}: python tools/prometheus.py .ci/prometheus"
    return found


def test_queries_ask_for_metrics_and_labels_that_are_exported() -> None:
    known = exported()
    for query in queries():
        names = [*_METRIC.findall(query)]
        assert {*names} <= known.keys() or not names, query
        labels = set(re.findall(r"(\w+)=~?\"", query)) | set(re.findall(r"by \(([^)]*)\)", query))
        used = {each.strip() for text in labels for each in text.split(",")} - {"instance", "job"}
        assert used <= set().union(*(known[name] for name in names)), query


def test_each_metric_is_looked_at_or_explained() -> None:
    """In the table of the page each is named, without what Prometheus adds to the name of a histogram."""
    shown = " ".join(queries())
    for name in exported():
        plain = re.sub(r"_(bucket|sum|count)$", "", name)
        assert f"`{plain}`" in PAGE, name
        assert plain in shown or plain in UNSHOWN, name
    assert all(
        f"genesis_flow_{name}" in exported()
        for name in re.findall(r"^\| `genesis_flow_(\w+?)`", PAGE, re.M)
        if "seconds" not in name
    )


# For whoever looks for a cause; no panel and no alert has them.
UNSHOWN = {"genesis_flow_build_info", "genesis_flow_embedded_server_up", "genesis_flow_review_queues"}


def test_names_and_units_are_those_of_prometheus(tmp_path: Path) -> None:
    """What promtool says of a scrape: nothing."""
    from prometheus_client import CollectorRegistry, generate_latest

    from genesis_flow.core.settings import Settings
    from genesis_flow.mongo import observed

    counting.commands.labels("find").observe(0.1)
    counting.command_errors.labels("find", "other").inc()
    registry = CollectorRegistry()
    for collector in (
        counting.registry,
        exporter.Build(),
        state.State(Settings.resolve(f"genesis://{tmp_path}/no")),
    ):
        registry.register(exporter.Undescribed(collector))
    text = generate_latest(registry)
    assert observed.observer is None
    lint = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    remarks = (lint.stdout + lint.stderr).decode().splitlines()
    # That of a counter's beginning, which is not exported by a server.
    assert [line for line in remarks if "_created" not in line] == []


def test_promtool_accepts_the_files(tmp_path: Path) -> None:
    check = [tool("promtool"), "check", "rules"]
    subprocess.run([*check, prometheus.RULES], check=True, capture_output=True)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(prometheus.RULES.read_text().replace("rate(", "rat(", 1))
    assert subprocess.run([*check, wrong], check=False, capture_output=True).returncode != 0
    configuration = prometheus.RULES.with_name("prometheus.yaml")
    subprocess.run([check[0], "check", "config", configuration], check=True, capture_output=True)
    (scraped,) = yaml.safe_load(configuration.read_text())["scrape_configs"]
    assert scraped["job_name"] == "genesis-flow"
    assert scraped["static_configs"] == [{"targets": [f"127.0.0.1:{DEFAULT_PORT}"]}]


def test_alerts_are_raised_and_only_by_bad_days(tmp_path: Path) -> None:
    """promtool plays series through the rules: those of a good day raise none, each bad one its own."""
    text = (Path(__file__).parent / "alerts.yaml").read_text().replace("RULES", str(prometheus.RULES))
    (tmp_path / "alerts.yaml").write_text(text)
    done = subprocess.run(
        [tool("promtool"), "test", "rules", "alerts.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    played = {
        test["alertname"]
        for each in yaml.safe_load(text)["tests"]
        for test in each["alert_rule_test"]
        if test["exp_alerts"]
    }
    assert played == {rule["alert"] for rule in rules()}


def test_each_alert_has_a_row_that_says_what_to_do() -> None:
    rows = re.findall(r"^\| `(GenesisFlow\w+)` \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert [name for name, _, _ in rows] == [rule["alert"] for rule in rules()]


def test_the_dashboard_is_that_of_the_panels() -> None:
    text = gen_dashboard.FILE.read_text()
    assert text == json.dumps(gen_dashboard.dashboard(), indent=2) + "\n"
    positions = [panel["gridPos"] for panel in json.loads(text)["panels"]]
    cells = [
        (x, y)
        for each in positions
        for x in range(each["x"], each["x"] + each["w"])
        for y in range(each["y"], each["y"] + each["h"])
    ]
    assert len(cells) == len({*cells}), "panels overlap"
    assert max(x for x, _ in cells) < 24


def dropped(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where two values differ, beyond what the second has more."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            yield from dropped(value, kept.get(key), f"{path}/{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, pair in enumerate(zip(given, kept, strict=True)):
            yield from dropped(*pair, f"{path}[{index}]")
    elif given != kept:
        yield path


def test_grafana_knows_all_that_the_dashboard_says() -> None:
    """Read by the types that Grafana makes from its own schema, and written again, nothing is lost."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    def through_grafana(given: dict[str, Any]) -> Any:
        return json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(given)))

    made = gen_dashboard.dashboard()
    assert [*dropped(made, through_grafana(made))] == []
    made["panels"][1]["gridPosition"] = made["panels"][1].pop("gridPos")
    assert "/panels[1]/gridPosition" in dropped(made, through_grafana(made))


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:80", ("::1", 80)),
        (" metrics.internal:65535 ", ("metrics.internal", 65535)),
    ],
)
def test_addresses(address: str, found: tuple[str, int]) -> None:
    assert host_and_port(address) == found


@pytest.mark.parametrize(
    "address", ["", "9464", ":9464", "::1:80", "host:", "host:65536", "http://host:1", "a b:1"]
)
def test_wrong_addresses_are_refused(address: str) -> None:
    import click

    with pytest.raises(click.UsageError, match="a host and a port"):
        host_and_port(address)
