"""Write the dashboard for Grafana from the table of its panels: python tools/gen_dashboard.py [--check]

The picture in the documentation (tools/draw_dashboard.py) and the tests take the panels from here as well.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "genesis-flow.json"
# What Grafana puts into queries itself.
INTERVAL, INSTANCE = "$__rate_interval", "$instance"
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24


@dataclass(frozen=True)
class Panel:
    """A picture of a few queries; what is in braces in a name is the label of that name."""

    title: str
    unit: str
    queries: dict[str, str]
    says: str = ""
    kind: str = "timeseries"
    stacked: bool = False


def _where(more: str = "") -> str:
    return f'{{instance=~"{INSTANCE}"{", " if more else ""}{more}}}'


def _rate(name: str, by: str = "", more: str = "") -> str:
    return f"sum {f'by ({by}) ' if by else ''}(rate(genesis_flow_{name}{_where(more)}[{INTERVAL}]))"


def _quantile(share: float, name: str, by: str = "") -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share:g}, {_rate(f'{name}_bucket', labels)})"


def _now(name: str, by: str = "", more: str = "") -> str:
    return f"sum {f'by ({by}) ' if by else ''}(genesis_flow_{name}{_where(more)})"


FAILED = 'status=~"5.."'
REQUEST, COMMAND = "http_request_duration_seconds", "database_command_duration_seconds"
ROWS: dict[str, tuple[Panel, ...]] = {
    "At a glance": (
        Panel("Database", "none", {"up": f"min(genesis_flow_database_up{_where()})"}, kind="up"),
        Panel("Requests", "reqps", {"requests": _rate("http_requests_total")}, kind="stat"),
        Panel(
            "Requests that fail",
            "percentunit",
            {
                "5xx": f"({_rate('http_requests_total', more=FAILED)} or vector(0))"
                f" / {_rate('http_requests_total')}"
            },
            kind="stat",
        ),
        Panel("Processes", "none", {"processes": _now("processes")}, kind="stat"),
        Panel(
            "Review items that wait",
            "none",
            {"items": _now("review_items", more='status="pending"')},
            kind="stat",
        ),
        Panel(
            "Disk that is free",
            "percentunit",
            {"free": f"min(genesis_flow_disk_free_bytes{_where()} / genesis_flow_disk_size_bytes{_where()})"},
            kind="stat",
        ),
    ),
    "Requests": (
        Panel(
            "Requests by route",
            "reqps",
            {"{method} {route}": f"topk(10, {_rate('http_requests_total', 'method, route')})"},
            "The ten that come most.",
        ),
        Panel(
            "Requests by status", "reqps", {"{status}": _rate("http_requests_total", "status")}, stacked=True
        ),
        Panel(
            "Time of a request",
            "s",
            {
                "half": _quantile(0.5, REQUEST),
                "19 of 20": _quantile(0.95, REQUEST),
                "99 of 100": _quantile(0.99, REQUEST),
            },
        ),
        Panel("Requests in flight", "none", {"in flight": _now("http_requests_in_flight")}),
    ),
    "Database": (
        Panel("Commands", "ops", {"{command}": _rate(f"{COMMAND}_count", "command")}, stacked=True),
        Panel(
            "Time of a command, 19 of 20",
            "s",
            {"{command}": _quantile(0.95, COMMAND, "command")},
        ),
        Panel(
            "Errors, retries, missed deadlines",
            "ops",
            {
                "error {error}": _rate("database_command_errors_total", "error"),
                "retried calls": f"{_rate('call_retries_total')} or vector(0)",
                "missed deadlines": f"{_rate('deadline_misses_total')} or vector(0)",
                "failovers": _rate("database_failovers_total"),
            },
            "A retry follows an error that passes, unnoticed; a missed deadline is a call that failed.",
        ),
        Panel(
            "Connections",
            "none",
            {"in use": _now("database_connections_in_use"), "limit": _now("database_connections_limit")},
        ),
        Panel("Answer to a ping", "s", {"{instance}": _now("database_ping_duration_seconds", "instance")}),
        Panel(
            "Size",
            "bytes",
            {
                "database": f"max(genesis_flow_database_size_bytes{_where()})",
                "free on its disk": f"min(genesis_flow_disk_free_bytes{_where()})",
            },
        ),
    ),
    "Work that waits": (
        Panel(
            "Background jobs",
            "none",
            {"{status}": _now("jobs", "status", 'status=~"PENDING|RUNNING|NEEDS_RECOVERY"')},
            stacked=True,
        ),
        Panel(
            "Age of the oldest waiting job",
            "s",
            {"age": f"max(genesis_flow_jobs_oldest_pending_age_seconds{_where()})"},
        ),
        Panel("Traces in review queues", "none", {"{status}": _now("review_items", "status")}, stacked=True),
        Panel(
            "Questions about many traces",
            "ops",
            {"from {answered_from}": f"{_rate('kept_sums_answers_total', 'answered_from')}"},
            "Those from sums are quick; those from traces read each trace.",
        ),
    ),
}


def panels() -> list[Panel]:
    return [panel for row in ROWS.values() for panel in row]


def query_for(text: str, *, interval: str) -> str:
    """A query as Prometheus takes it."""
    return text.replace(INTERVAL, interval).replace(INSTANCE, ".*")


def dashboard() -> dict[str, Any]:
    placed: list[dict[str, Any]] = []
    height = 0
    for title, row in ROWS.items():
        placed.append(
            {
                "type": "row",
                "id": len(placed) + 1,
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": height, "w": _COLUMNS, "h": 1},
            }
        )
        height += 1
        small = all(panel.kind != "timeseries" for panel in row)
        width, tall = (_COLUMNS // len(row), 4) if small else (_COLUMNS // 2, 8)
        for index, panel in enumerate(row):
            column = index * width % _COLUMNS
            position = {"x": column, "y": height, "w": width, "h": tall}
            placed.append({"id": len(placed) + 1, "gridPos": position, **_panel(panel)})
            if column + width == _COLUMNS or panel is row[-1]:
                height += tall
    return {
        "uid": "genesis-flow",
        "title": "genesis_flow",
        "description": "A server of genesis_flow and its MongoDB. Made by tools/gen_dashboard.py.",
        "tags": ["genesis-flow", "mlflow"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_datasource_variable(), _instance_variable()]},
        "panels": placed,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": "timeseries" if panel.kind == "timeseries" else "stat",
        "title": panel.title,
        "description": panel.says,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": query,
                "legendFormat": name.replace("{", "{{").replace("}", "}}"),
            }
            for index, (name, query) in enumerate(panel.queries.items())
        ],
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.kind == "timeseries":
        found["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 5,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    if panel.kind == "up":
        found["mappings"] = [
            {
                "type": "value",
                "options": {
                    "0": {"text": "away", "color": "red", "index": 0},
                    "1": {"text": "answers", "color": "green", "index": 1},
                },
            }
        ]
    return found


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "colorMode": "value",
        "graphMode": "none" if panel.kind == "up" else "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _instance_variable() -> dict[str, Any]:
    return {
        "name": "instance",
        "label": "Server",
        "type": "query",
        "datasource": _DATASOURCE,
        "query": "label_values(genesis_flow_build_info, instance)",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    text = json.dumps(dashboard(), indent=2) + "\n"
    if parser.parse_args().check:
        if not FILE.is_file() or FILE.read_text(encoding="utf-8") != text:
            print(
                f"{FILE.name} is not what the panels say: run python tools/gen_dashboard.py", file=sys.stderr
            )
            return 1
        return 0
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
