"""What ``genesis-flow server`` hands to MLflow: options that anybody may see, secrets in the environment."""

from dataclasses import replace
from pathlib import Path

import click
import pytest

from genesis_flow.cli.server_plan import Plan, Wishes, make_plan
from genesis_flow.core.settings import Settings
from genesis_flow.plugins.job_hooks import LOOK_SECONDS

CANARY = "p4ssw0rd-canary"
URI = f"mongodb://ada:{CANARY}@db.example.com/mlflow#team"


def plan(wishes: Wishes | None = None, **environ: str) -> Plan:
    wishes = wishes or Wishes()
    settings = Settings.resolve(wishes.backend, artifact_root=wishes.artifact_root, environ=environ)
    return make_plan(wishes, settings, environ)


def option(made: Plan, name: str) -> str | None:
    command = list(made.command)
    return command[command.index(name) + 1] if name in command else None


def test_the_password_travels_in_the_environment_alone() -> None:
    made = plan(Wishes(backend=URI), GENESIS_FLOW_MONGODB_URI=URI, MLFLOW_TRACKING_URI=URI, PATH="/bin")
    assert CANARY not in " ".join(made.command)
    assert option(made, "--backend-store-uri") == "mongodb://db.example.com/mlflow#team_"
    assert {name for name, value in made.environment.items() if CANARY in value} == {
        "GENESIS_FLOW_MONGODB_PASSWORD"
    }
    assert made.environment["GENESIS_FLOW_MONGODB_USERNAME"] == "ada"
    # The server's processes find the same store as this one.
    found = Settings.resolve(option(made, "--backend-store-uri"), environ=made.environment)
    wanted = Settings.resolve(URI, environ={})
    assert (found.cache_key, found.prefix, found.database) == (wanted.cache_key, "team_", "mlflow")


def test_a_password_file_stays_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(CANARY)
    variables = {
        "GENESIS_FLOW_MONGODB_URI": "mongodb://db.example.com/mlflow",
        "GENESIS_FLOW_MONGODB_USERNAME": "ada",
        "GENESIS_FLOW_MONGODB_PASSWORD_FILE": str(tmp_path / "password"),
    }
    made = plan(**variables)
    assert not any(CANARY in text for text in (*made.command, *made.environment.values()))
    assert made.environment["GENESIS_FLOW_MONGODB_PASSWORD_FILE"] == str(tmp_path / "password")


def test_a_tracking_server_of_the_user_stays_named() -> None:
    made = plan(Wishes(backend="mongodb://db/mlflow"), MLFLOW_TRACKING_URI="http://elsewhere")
    assert made.environment["MLFLOW_TRACKING_URI"] == "http://elsewhere"


@pytest.mark.parametrize(
    ("wishes", "environ", "root", "destination"),
    [
        # New experiments of an embedded store are shared with clients that do without the server ...
        (Wishes(backend="genesis:///d"), {}, "file:///d/artifacts", "file:///d/artifacts"),
        # ... unless other machines may ask it: those cannot write here themselves.
        (Wishes(backend="genesis:///d", host="0.0.0.0"), {}, None, "file:///d/artifacts"),
        (
            Wishes(backend="genesis:///d", host="0.0.0.0", serve_artifacts=False),
            {},
            "file:///d/artifacts",
            "file:///d/artifacts",
        ),
        # MLflow's own defaults for a server.
        (Wishes(backend="mongodb://db/x"), {}, None, None),
        # What is configured for every store, and what only this command is told.
        (Wishes(backend="mongodb://db/x"), {"GENESIS_FLOW_ARTIFACT_ROOT": "s3://all"}, "s3://all", None),
        (
            Wishes(backend="mongodb://db/x", artifact_root="s3://one"),
            {"GENESIS_FLOW_ARTIFACT_ROOT": "s3://all"},
            "s3://one",
            None,
        ),
        (
            Wishes(backend="genesis:///d", artifact_root="s3://one", artifacts_destination="s3://two"),
            {},
            "s3://one",
            "s3://two",
        ),
    ],
)
def test_artifacts(
    wishes: Wishes, environ: dict[str, str], root: str | None, destination: str | None
) -> None:
    made = plan(wishes, **environ)
    assert option(made, "--default-artifact-root") == root
    assert option(made, "--artifacts-destination") == destination


def test_what_is_not_ours_goes_to_mlflow() -> None:
    others = ("--expose-prometheus", "metrics", "--allowed-hosts", "mlflow.example.com")
    made = plan(Wishes(backend="mongodb://db/x", workers=3, static_prefix="/ml", others=others))
    assert made.command[-4:] == others
    assert (option(made, "--workers"), option(made, "--static-prefix")) == ("3", "/ml")
    assert (made.address, made.health) == ("http://127.0.0.1:5000/ml", "/ml/health")


@pytest.mark.parametrize(
    ("others", "environ"),
    [
        (("--app-name", "another"), {}),
        (("--app-name=another",), {}),
        (("--gunicorn-opts", "--timeout 30"), {}),
        (("--dev",), {}),
        ((), {"MLFLOW_GUNICORN_OPTS": "--timeout 30"}),
    ],
)
def test_other_applications_run_without_our_endpoints(
    others: tuple[str, ...], environ: dict[str, str]
) -> None:
    made = plan(Wishes(backend="mongodb://db/x", others=others), **environ)
    assert not made.has_health_endpoints
    assert option(made, "--app-name") != "genesis-flow"


def test_workers_of_an_embedded_store() -> None:
    assert option(plan(Wishes(backend="genesis:///d")), "--workers") == "1"
    assert option(plan(Wishes(backend="genesis:///d", workers=2)), "--workers") == "2"
    assert option(plan(Wishes(backend="mongodb://db/x")), "--workers") is None, "MLflow's default"


@pytest.mark.parametrize(
    ("wishes", "address"),
    [
        (Wishes(host="0.0.0.0", port=80), "http://127.0.0.1:80"),
        (Wishes(host="::"), "http://[::1]:5000"),
        (Wishes(others=("--uvicorn-opts", "--ssl-certfile a --ssl-keyfile b")), "https://127.0.0.1:5000"),
    ],
)
def test_the_address_can_be_opened(wishes: Wishes, address: str) -> None:
    assert plan(wishes).address == address


def test_a_registry_elsewhere() -> None:
    registry = f"mongodb://ada:{CANARY}@registry.example.com/mlflow"
    made = plan(Wishes(backend=URI, registry=registry))
    assert option(made, "--registry-store-uri") == "mongodb://registry.example.com/mlflow"
    with pytest.raises(click.UsageError, match="another user or password") as refused:
        plan(Wishes(backend=URI, registry=f"mongodb://bob:other-{CANARY}@registry.example.com/mlflow"))
    assert CANARY not in str(refused.value)
    kept = plan(Wishes(backend=URI, registry="sqlite:///registry.db"))
    assert option(kept, "--registry-store-uri") == "sqlite:///registry.db"


@pytest.mark.parametrize(
    "secret",
    [
        f"tls=true&tlsCertificateKeyFilePassword={CANARY}",
        f"authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN%3A{CANARY}",
    ],
)
def test_other_secrets_of_a_uri_are_refused(secret: str) -> None:
    uri = f"mongodb://db.example.com/mlflow?{secret}"
    with pytest.raises(click.UsageError, match="MLflow would print") as refused:
        plan(Wishes(backend=uri))
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("wish", "environ", "runs", "enabled", "engine"),
    [
        (None, {}, "off", "false", None),
        ("off", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"}, "off", "false", None),
        ("executor", {}, "executor", "true", "executor"),
        ("huey", {"MLFLOW_SERVER_JOB_EXECUTION_ENGINE": "executor"}, "huey", "true", None),
        (None, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"}, "huey", "true", None),
        (
            None,
            {
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true",
                "MLFLOW_SERVER_JOB_EXECUTION_ENGINE": "executor",
            },
            "executor",
            "true",
            "executor",
        ),
    ],
)
def test_what_runs_background_jobs(
    wish: str | None, environ: dict[str, str], runs: str, enabled: str, engine: str | None
) -> None:
    made = plan(Wishes(backend="mongodb://db/mlflow", jobs=wish), **environ)
    assert made.jobs == runs
    assert made.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == enabled
    assert made.environment.get("MLFLOW_SERVER_JOB_EXECUTION_ENGINE") == engine
    # Within a minute jobs of a server that is gone run elsewhere.
    assert float(made.environment["MLFLOW_SERVER_JOB_LEASE_TTL"]) + LOOK_SECONDS < 60


def test_traces_of_the_server_are_written_together() -> None:
    """Those of the gateway's calls, a second's at once, unless somebody has said otherwise."""
    size, interval = (
        f"MLFLOW_ASYNC_TRACE_LOGGING_MAX_{each}" for each in ("SPAN_BATCH_SIZE", "INTERVAL_MILLIS")
    )
    made = plan(Wishes(backend="mongodb://db/mlflow"), **{size: "7"})
    assert (made.environment[size], made.environment[interval]) == ("7", "1000")
    assert int(plan(Wishes(backend="mongodb://db/mlflow")).environment[size]) >= 100


def test_rollups_of_sql_are_refused() -> None:
    with pytest.raises(click.UsageError, match="MLFLOW_SQL_TRACE_ROLLUPS_ENABLED"):
        plan(Wishes(backend="mongodb://db/mlflow"), MLFLOW_SQL_TRACE_ROLLUPS_ENABLED="true")


@pytest.mark.parametrize("others", [("--app-name", "basic-auth"), ("--app-name=basic-auth", "--x", "1")])
def test_the_login_has_our_endpoints_and_is_asked_for_by_its_name(others: tuple[str, ...]) -> None:
    """MLflow makes the first admin, and a token for jobs, only for an application of this name."""
    made = plan(Wishes(backend="mongodb://db/x", others=others))
    assert (made.login, made.has_health_endpoints) == (True, True)
    assert "genesis-flow" not in made.command
    assert not plan(Wishes(backend="mongodb://db/x")).login


def test_the_user_of_jobs_reaches_them_and_is_of_a_login() -> None:
    wishes = Wishes(backend="mongodb://db/x", jobs="executor", jobs_user="night")
    made = plan(replace(wishes, others=("--app-name", "basic-auth")))
    assert made.environment["GENESIS_FLOW_JOBS_USER"] == "night"
    for useless in (wishes, replace(wishes, others=("--app-name", "basic-auth"), jobs="off")):
        with pytest.raises(click.UsageError, match="--app-name basic-auth"):
            plan(useless)
    # Whoever starts a server without it gets none from the environment of the shell.
    made = plan(Wishes(backend="mongodb://db/x"), GENESIS_FLOW_JOBS_USER="x")
    assert "GENESIS_FLOW_JOBS_USER" not in made.environment
