"""The gateway, MCP servers and skills of an SQL database: brought over, compared, taken back.

One source serves all: each test changes a copy of it.
"""

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genesis_flow.importers.engine import Options, analyze
from genesis_flow.importers.errors import ImportConflict
from genesis_flow.importers.report import lines_of
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.jobs import Job, config_for
from tests.importing.killing import killed_at_a_write, run_child, take_lock_away
from tests.importing.people import fill
from tests.importing.registries import (
    COLLECTIONS,
    TABLES,
    VALUES,
    WEATHER,
    fill_gateway,
    fill_registries,
    registries_state,
)
from tests.importing.sql_databases import ARTIFACT_ROOT, connected, oracle, unpacked
from tests.importing.stores import differences
from tests.importing.verifying import check
from tests.versions import SINCE_3_18


class Source:
    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.path, self.state = path, state
        self.uri = f"sqlite:///{path}"

    def execute(self, *statements: str) -> None:
        with connected(self.path) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount, statement

    def rows(self, query: str) -> list[Any]:
        with connected(self.path) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = unpacked("3.17.2", tmp_path_factory.mktemp("registries"))
    with oracle(path) as (store, _):
        fill(store)
        fill_gateway(store)
        fill_registries(store)
        # MLflow asks the clock twice, which mostly gives one time.
        with connected(path) as connection:
            connection.execute("UPDATE endpoint_bindings SET last_updated_at = created_at + 7")
        return path, registries_state(store)


@pytest.fixture
def source(filled: tuple[Path, dict[str, Any]], tmp_path: Path) -> Source:
    path, state = filled
    return Source(Path(shutil.copy(path, tmp_path / "mlflow.db")), state)


@pytest.fixture
def store(job: Job) -> Iterator[MongoDBStore]:
    made = MongoDBStore(job.uri, ARTIFACT_ROOT)
    yield made
    made.close()


def test_the_source_has_rows_in_every_table(source: Source) -> None:
    for table in TABLES:
        assert source.rows(f"SELECT COUNT(*) FROM {table}") > [(1,)], table


def test_stores_answer_the_same(source: Source, job: Job, store: MongoDBStore) -> None:
    outcome = job.run(source.uri)
    assert (outcome.first_problems, outcome.unsupported) == ([], {})
    assert "MLFLOW_CRYPTO_KEK_PASSPHRASE" in "\n".join(lines_of(outcome))
    ours = _same_state(source, store)
    assert VALUES in ours["values"].values()
    found = check(job.uri, source.uri)
    assert (found.exit_code, found.outcome.differences) == (0, [])


def _same_state(source: Source, store: MongoDBStore) -> dict[str, Any]:
    ours, theirs = registries_state(store), copy.deepcopy(source.state)
    # MLflow still shows aliases that lead to nothing.
    for state in ("servers", "server"):
        assert theirs[state][WEATHER]["aliases"].pop("next") == "3.0.0"
    assert differences(ours, theirs) == []
    return ours


def test_importing_again_changes_nothing_and_brings_what_changed(
    source: Source, job: Job, store: MongoDBStore
) -> None:
    job.run(source.uri)
    before = {name: job.contents()[name] for name in COLLECTIONS}
    assert job.run(source.uri).first_problems == []
    assert {name: job.contents()[name] for name in COLLECTIONS} == before
    source.execute(
        "UPDATE endpoint_tags SET value = 'new' WHERE key = 'plain'",
        "UPDATE mcp_server_aliases SET version = '10.0.0+b' WHERE alias = 'stable'",
        "UPDATE model_definitions SET name = 'x' WHERE name = 'first'",
        "UPDATE model_definitions SET name = 'first' WHERE name = 'second'",
        "UPDATE model_definitions SET name = 'second' WHERE name = 'x'",
    )
    assert not check(job.uri, source.uri).equal
    assert job.run(source.uri).first_problems == []
    assert check(job.uri, source.uri).exit_code == 0
    assert store.get_mcp_server_version_by_alias(WEATHER, "stable").version == "10.0.0+b"


def test_killed_among_them_and_run_again(source: Source, job: Job, store: MongoDBStore) -> None:
    """Nobody finds a thing without its parts after a kill, and the next attempt keeps what is done."""
    done: dict[str, dict[Any, Any]] = {}
    for collection, moment, finished in (
        ("gateway_bindings", "answered", {"gateway_secrets", "gateway_models"}),
        ("mcp_contents", "answered", {"gateway_endpoints", "gateway_bindings", "gateway_budgets"}),
        ("skills" if SINCE_3_18 else "mcp_servers", "started", {"mcp_contents"}),
    ):
        assert run_child(killed_at_a_write, job.uri, source.uri, collection, moment) == -9, collection
        take_lock_away(job.uri)
        there = job.contents()
        assert {name: there[name] for name in done} == done, collection
        done |= {name: there[name] for name in finished}
        assert (collection in there) == (moment == "answered"), collection
        # Endpoints come behind their bindings, servers behind the contents of their versions.
        behind = {"gateway_bindings": "gateway_endpoints", "mcp_contents": "mcp_servers"}
        assert behind.get(collection) not in there, collection
    assert job.run(source.uri).first_problems == []
    found = check(job.uri, source.uri)
    assert (found.exit_code, found.outcome.differences) == (0, [])
    _same_state(source, store)


def test_an_analysis_names_what_it_cannot_bring(source: Source, job: Job) -> None:
    source.execute(
        "UPDATE budget_policies SET budget_action = 'SHOUT' WHERE target_scope = 'GLOBAL'",
        "UPDATE endpoints SET fallback_config_json = '[' WHERE name = 'traced'",
        "UPDATE secrets SET kek_version = 'one' WHERE secret_name = 'bare'",
        f"UPDATE mcp_server_versions SET server_json = '[' WHERE name = '{WEATHER}' AND version = '1.0.0'",
        "UPDATE guardrails SET scorer_version = 77 WHERE name = 'first'",
        "INSERT INTO endpoint_tags VALUES ('k', 'v', 'gone')",
    )
    for run in (lambda: analyze(config_for(job.uri), source.uri, Options()), lambda: job.run(source.uri)):
        outcome = run()
        kinds = sorted(each.kind for each in outcome.first_problems)
        assert kinds == [
            "gateway_budget",
            *["gateway_endpoint"] * 2,
            "gateway_guardrail",
            "gateway_secret",
            "mcp_server",
        ]
        assert outcome.unsupported == {}
        assert not outcome.complete
    found = check(job.uri, source.uri)
    # What can be read all the same is missing: MLflow knows no such action, and bindings have lost theirs.
    missing = sorted((each.kind, each.target) for each in found.outcome.differences)
    assert missing == [*[("gateway_binding", "is missing")] * 2, ("gateway_budget", "is missing")]
    read = ["gateway_endpoint", "gateway_guardrail", "mcp_server", "secrets"]
    assert sorted({each.kind for each in found.outcome.unreadable}) == read


def test_of_one_experiment_nothing_comes_that_belongs_to_none(source: Source, job: Job) -> None:
    outcome = job.run(source.uri, experiments=["2"])
    assert outcome.first_problems == []
    assert job.contents().keys() & set(COLLECTIONS) == set()
    assert "PASSPHRASE" not in "\n".join(lines_of(outcome))
    assert check(job.uri, source.uri).equal is False


def test_of_two_workspaces_the_first_gives_the_names(source: Source, job: Job) -> None:
    copies = {
        "secrets": "secret_id || 'z'",
        "mcp_servers": "name",
    }
    for table, key in copies.items():
        names = [name for _, name, *_ in source.rows(f"PRAGMA table_info({table})")]
        values = ", ".join(
            key if name == key.split(" ")[0] else "'other'" if name == "workspace" else name for name in names
        )
        source.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table}")
    outcome = job.run(source.uri)
    others = [each for each in outcome.first_problems if "another workspace" in each.reason]
    assert sorted(each.kind for each in others) == [*["gateway_secret"] * 3, *["mcp_server"] * 3]
    found = check(job.uri, source.uri)
    assert (found.equal, found.exit_code) == (True, 3), found.outcome.differences


def test_a_name_that_the_target_has_is_a_conflict(source: Source, job: Job, store: MongoDBStore) -> None:
    mine = store.create_gateway_secret("key ü", {"api_key": "mine"}).secret_id
    with pytest.raises(ImportConflict, match="the target has another one of this name"):
        job.run(source.uri)
    outcome = job.run(source.uri, on_conflict="skip")
    assert [each.kind for each in outcome.first_problems] == ["gateway_secret"]
    assert store._get_decrypted_secret(mine) == {"api_key": "mine"}


def test_a_secret_whose_key_was_wrapped_anew_stays_so(source: Source, job: Job) -> None:
    job.run(source.uri)
    rotated = {"wrapped_dek": b"wrapped anew", "kek_version": 2}
    with job.database() as database:
        database["gateway_secrets"].update_one({"name": "key ü"}, {"$set": rotated})
    job.run(source.uri)
    with job.database() as database:
        found = database["gateway_secrets"].find_one({"name": "key ü"}, dict.fromkeys(rotated, 1))
        assert found is not None
        assert {name: found[name] for name in rotated} == rotated


def test_no_difference_shows_what_is_encrypted(source: Source, job: Job) -> None:
    job.run(source.uri)
    with job.database() as database:
        database["gateway_secrets"].update_many({}, {"$set": {"value": b"canary"}})
    found = check(job.uri, source.uri)
    assert {each.field for each in found.outcome.differences} == {"value"}
    assert all(len(text) == 66 for each in found.outcome.differences for text in (each.source, each.target))


def test_a_rollback_takes_all_of_it(source: Source, job: Job) -> None:
    outcome = job.run(source.uri)
    assert job.contents().keys() >= set(COLLECTIONS)
    assert job.rollback(outcome.journal).kept == []
    assert job.contents().keys() & set(COLLECTIONS) == set()
    assert job.rollback(outcome.journal).removed == {}


def test_what_calls_spend_of_a_budget_is_no_change_of_it(
    source: Source, job: Job, store: MongoDBStore
) -> None:
    outcome = job.run(source.uri)
    endpoints = [each.endpoint_id for each in store.list_gateway_endpoints()]
    for endpoint in endpoints:
        store._count_gateway_cost(f"a call of {endpoint}", 0.5, endpoint, "default", "ann")
    spent = [window.cumulative_spend for window in store._gateway_budget_windows()]
    assert any(spent), "the calls have been counted"
    assert check(job.uri, source.uri).outcome.differences == []
    assert job.rollback(outcome.journal).kept == []


def test_a_rollback_keeps_what_people_use(source: Source, job: Job, store: MongoDBStore) -> None:
    outcome = job.run(source.uri)
    endpoint = store.get_gateway_endpoint(name="own experiment")
    scorer = store.get_scorer("1", "judge").scorer_id
    rewrites = store.create_gateway_guardrail(
        "mine", scorer, 1, "AFTER", "SANITIZATION", endpoint.endpoint_id
    )
    store.set_mcp_server_tag(WEATHER, "mine", "v")
    done = job.rollback(outcome.journal)
    model = endpoint.model_mappings[0].model_definition
    assert {(each.kind, each.where) for each in done.kept} == {
        ("mcp_server", f"default|{WEATHER}"),
        ("gateway_endpoint", endpoint.endpoint_id),
        ("gateway_model", model.model_definition_id),
        ("gateway_secret", model.secret_id),
        ("experiment", endpoint.experiment_id),
    }
    assert store.get_gateway_guardrail(rewrites.guardrail_id).action_endpoint_name == "own experiment"
    assert store.get_mcp_server_version_by_alias(WEATHER, "stable").version == "1.0.0"
    assert [each.kind for each in job.rollback(outcome.journal, force=True).kept] != []
    store.delete_gateway_guardrail(rewrites.guardrail_id)
    assert job.rollback(outcome.journal, force=True).kept == []
