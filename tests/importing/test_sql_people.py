"""Questions, review queues, issues and scorers of an SQL database: brought over, compared, taken back.

One source serves all: each test changes a copy of it.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genesis_flow.cli.migrate import cli
from genesis_flow.importers.engine import Options, analyze
from genesis_flow.importers.errors import ImportConflict
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.jobs import Job, config_for
from tests.importing.killing import killed_at_a_write, run_child, take_lock_away
from tests.importing.people import TABLES, fill, judge, people_state
from tests.importing.sql_databases import ARTIFACT_ROOT, connected, oracle, unpacked
from tests.importing.stores import differences
from tests.importing.verifying import check

COLLECTIONS = ("label_schemas", "review_queues", "review_queue_items", "issues", "scorers")


class Source:
    """A database with all of them."""

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
    path = unpacked("3.17.2", tmp_path_factory.mktemp("people"))
    with oracle(path) as (store, _):
        fill(store)
        return path, people_state(store)


@pytest.fixture
def source(filled: tuple[Path, dict[str, Any]], tmp_path: Path) -> Source:
    path, state = filled
    return Source(Path(shutil.copy(path, tmp_path / "mlflow.db")), copy.deepcopy(state))


@pytest.fixture
def store(job: Job) -> Iterator[MongoDBStore]:
    made = MongoDBStore(job.uri, ARTIFACT_ROOT)
    yield made
    made.close()


def test_the_source_has_rows_in_every_table(source: Source) -> None:
    for table in TABLES:
        assert source.rows(f"SELECT COUNT(*) FROM {table}") > [(1,)], table


def test_stores_answer_the_same(source: Source, job: Job) -> None:
    outcome = job.run(source.uri)
    assert (outcome.first_problems, outcome.unsupported) == ([], {})
    store = MongoDBStore(job.uri, ARTIFACT_ROOT)
    with oracle(source.path) as (theirs, _):
        expected = people_state(theirs)
    ours = people_state(store)
    store.close()
    assert differences(ours, expected) == []
    found = check(job.uri, source.uri)
    assert (found.exit_code, found.outcome.differences) == (0, [])


def listed(job: Job) -> list[tuple[str, str]]:
    found = CliRunner().invoke(cli, ["--quiet", "--uri", job.uri, "import", "--list", "--json"])
    assert found.exit_code == 0, found.output
    return [(each["source"], each["state"]) for each in json.loads(found.stdout)]


def test_killed_among_them_and_run_again(source: Source, job: Job) -> None:
    """Each attempt goes on where the last one was killed; the list says how far it came."""
    assert listed(job) == []
    for collection, moment in (
        ("label_schemas", "answered"),
        ("review_queue_items", "started"),
        ("issues", "answered"),
        ("scorers", "started"),
    ):
        assert run_child(killed_at_a_write, job.uri, source.uri, collection, moment) == -9, collection
        take_lock_away(job.uri)
        assert [state for _, state in listed(job)] == ["running"], collection
        with job.database() as database:
            assert (database[collection].find_one() is not None) == (moment == "answered"), collection
    assert job.run(source.uri).first_problems == []
    assert [state for _, state in listed(job)] == ["done"]
    found = check(job.uri, source.uri)
    assert (found.exit_code, found.outcome.differences) == (0, [])
    store = MongoDBStore(job.uri, ARTIFACT_ROOT)
    with oracle(source.path) as (theirs, _):
        expected = people_state(theirs)
    assert differences(people_state(store), expected) == []
    store.close()


def test_numbers_of_traces_follow_an_import_and_its_rollback(source: Source, job: Job) -> None:
    """They are kept by who looks, which is no change that would keep an issue from being taken back."""
    store = MongoDBStore(job.uri, ARTIFACT_ROOT)
    outcome = job.run(source.uri)
    issue, trace = source.rows("SELECT name, trace_id FROM assessments WHERE assessment_type = 'issue'")[0]
    mine = store.create_issue("0", "mine", "d").issue_id

    def shown(issue_id: str) -> int | None:
        (found,) = [
            each for each in store.search_issues(include_trace_count=True) if each.issue_id == issue_id
        ]
        return found.trace_count

    before = shown(issue)
    assert (
        before
        == source.rows(
            f"SELECT COUNT(DISTINCT trace_id) FROM assessments WHERE name = '{issue}' "
            "AND assessment_type = 'issue'"
        )[0][0]
    )
    # The source finds that a trace has got the issue of the target, too, which was counted already.
    assert shown(mine) == 0
    source.execute(
        f"UPDATE assessments SET name = '{mine}' WHERE assessment_type = 'issue' AND trace_id = '{trace}' "
        f"AND name = '{issue}'"
    )
    job.run(source.uri)
    assert (shown(mine), shown(issue)) == (1, before - 1)
    assert [each.kind for each in job.rollback(outcome.journal).kept] == ["experiment"]  # that of mine
    assert shown(mine) == 0
    assert [each.issue_id for each in store.search_issues(include_trace_count=True)] == [mine]
    store.close()


def test_an_analysis_names_what_it_cannot_bring(source: Source, job: Job) -> None:
    source.execute("UPDATE review_queue_items SET status = 'sleeping' WHERE item_id = 'tr-gone'")
    source.execute("UPDATE issues SET root_causes = 'no json' WHERE name = 'Slow Ü'")
    source.execute("UPDATE scorer_versions SET serialized_scorer = '[' WHERE scorer_version = 2")
    source.execute("INSERT INTO scorer_versions VALUES ('gone', 1, '{}', 1)")
    source.execute("UPDATE endpoint_bindings SET display_name = NULL WHERE rowid = 1")
    for run in (lambda: analyze(config_for(job.uri), source.uri, Options()), lambda: job.run(source.uri)):
        outcome = run()
        kinds = sorted(each.kind for each in outcome.first_problems)
        assert kinds == [*["issue"] * 2, *["review_queue_item"] * 2, *["scorer"] * 4]
        # Without its name a binding is one that somebody made besides.
        assert outcome.stats.read["gateway_binding"] == 1
        assert outcome.unsupported == {}
        assert not outcome.complete


def test_importing_again_brings_what_changed(source: Source, job: Job) -> None:
    job.run(source.uri)
    source.execute(
        "UPDATE review_queue_items SET status = 'complete', completed_by = 'adam', completed_time_ms = 7 "
        "WHERE item_id = 'tr-gone'",
        "UPDATE label_schemas SET name = 'x' WHERE name = 'which'",
        "UPDATE label_schemas SET name = 'which' WHERE name = 'say'",
        "UPDATE label_schemas SET name = 'say' WHERE name = 'x'",
    )
    assert not check(job.uri, source.uri).equal
    assert job.run(source.uri).first_problems == []
    assert check(job.uri, source.uri).exit_code == 0


def test_since_brings_the_issues_that_changed_since(source: Source, job: Job) -> None:
    source.execute("UPDATE issues SET created_timestamp = 5, last_updated_timestamp = 5 WHERE name <> 'bare'")
    outcome = job.run(source.uri, since=1_000_000)
    assert (
        outcome.stats.read["issue"]
        == 2 + (1 if source.rows("SELECT 1 FROM issues WHERE name='slow'") else 0) - 1
    )
    assert outcome.stats.read["experiment"] == len(source.rows("SELECT 1 FROM experiments"))


def test_of_one_experiment_only_its_own_come(source: Source, job: Job) -> None:
    outcome = job.run(source.uri, experiments=["2"])
    assert outcome.first_problems == []
    with job.database() as database:
        for name in COLLECTIONS:
            assert database[name].distinct("experiment_id") == [2], name


def test_a_question_that_the_target_made_itself_is_the_same_one(source: Source, job: Job) -> None:
    """The source makes its default question after the first import, the target when somebody looks."""
    (defaults,) = [source.rows("SELECT * FROM label_schemas WHERE is_default")]
    source.execute("DELETE FROM label_schemas WHERE is_default")
    job.run(source.uri)
    store = MongoDBStore(job.uri, ARTIFACT_ROOT)
    made = {number: _default(store, number) for number in ("1", "2")}
    with connected(source.path) as connection:
        for row in defaults:
            places = ", ".join("?" for _ in row)
            connection.execute(f"INSERT INTO label_schemas VALUES ({places})", row)
    assert job.run(source.uri).first_problems == []
    for number in ("1", "2"):
        assert _default(store, number) == made[number]
        queue = store.get_review_queue_by_name(number, name="team a")
        assert made[number] in queue.schema_ids
    store.close()
    found = check(job.uri, source.uri)
    assert (found.exit_code, found.outcome.differences) == (0, [])


def _default(store: Any, number: str) -> str:
    (found,) = [each.schema_id for each in store.list_label_schemas(number) if each.is_default]
    return str(found)


def test_a_name_that_the_target_has_is_a_conflict(source: Source, job: Job) -> None:
    source.execute("UPDATE scorers SET scorer_name = 'later' WHERE scorer_name = 'judge'")
    job.run(source.uri)
    store = MongoDBStore(job.uri, ARTIFACT_ROOT)
    mine = store.register_scorer("1", "new", judge("openai:/gpt")).scorer_id
    store.close()
    source.execute(
        "UPDATE scorers SET scorer_name = 'new' WHERE scorer_name = 'Plain ü' AND experiment_id = 1"
    )
    with pytest.raises(ImportConflict, match="another one of this name in experiment 1"):
        job.run(source.uri)
    outcome = job.run(source.uri, on_conflict="skip")
    assert [each.kind for each in outcome.first_problems] == ["scorer"]
    with job.database() as database:
        assert database["scorers"].find_one({"experiment_id": 1, "name": "new"}, {"_id": 1}) == {"_id": mine}


def test_a_rollback_takes_all_of_it(source: Source, job: Job) -> None:
    outcome = job.run(source.uri)
    assert job.contents().keys() >= set(COLLECTIONS)
    done = job.rollback(outcome.journal)
    assert done.kept == []
    assert job.contents().keys() & set(COLLECTIONS) == set()
    assert job.rollback(outcome.journal).removed == {}


def test_a_rollback_keeps_what_people_changed_and_what_it_needs(source: Source, job: Job) -> None:
    outcome = job.run(source.uri)
    store = MongoDBStore(job.uri, ARTIFACT_ROOT)
    queue = store.get_review_queue_by_name("1", name="team a")
    items = store.list_review_queue_items(queue.queue_id)
    waiting = next(item.item_id for item in items if str(item.status) == "pending")
    store.set_review_queue_item_status(
        queue.queue_id, item_id=waiting, status="complete", completed_by="somebody"
    )
    issue = next(each for each in store.search_issues("1") if each.source_run_id)
    store.update_issue(issue.issue_id, name="mine")
    scorer = store.register_scorer("2", "judge", judge("openai:/gpt"))
    endpoint = store.get_gateway_endpoint(name="chat")
    (model,) = (each.model_definition for each in endpoint.model_mappings)
    store.list_label_schemas("1")
    store.close()
    done = job.rollback(outcome.journal)
    # The datasets of the run that stays are not this test's.
    kept = {(each.kind, each.where) for each in done.kept if each.kind != "dataset"}
    traces = {item.item_id for item in items} - {"tr-gone"}
    assert kept == {
        ("review_queue", queue.queue_id),
        *(("label_schema", schema) for schema in queue.schema_ids),
        ("issue", issue.issue_id),
        ("scorer", scorer.scorer_id),
        # The scorer that stays asks it.
        ("gateway_endpoint", endpoint.endpoint_id),
        ("gateway_model", model.model_definition_id),
        ("gateway_secret", model.secret_id),
        *(("trace", trace) for trace in traces),
        ("run", issue.source_run_id),
        ("experiment", "1"),
        ("experiment", "2"),
    }
    assert done.changed
    assert job.rollback(outcome.journal, force=True).kept == []
    assert job.contents().keys() & set(COLLECTIONS) == set()


def test_a_rollback_keeps_traces_that_people_put_into_a_queue_of_theirs(source: Source, job: Job) -> None:
    outcome = job.run(source.uri)
    store = MongoDBStore(job.uri, ARTIFACT_ROOT)
    trace = store.search_traces(locations=["1"])[0][0].trace_id
    mine = store.get_or_create_user_queue("2", user="mine")
    store.add_items_to_review_queue(mine.queue_id, item_ids=[trace])
    store.close()
    done = job.rollback(outcome.journal)
    assert [each.where for each in done.kept] == [trace, "1", "2"]
    assert "review queue items" in done.kept[0].reason
    assert not done.changed


def test_the_question_that_a_look_makes_goes_with_its_experiment(source: Source, job: Job) -> None:
    source.execute("DELETE FROM label_schemas")
    outcome = job.run(source.uri)
    store = MongoDBStore(job.uri, ARTIFACT_ROOT)
    store.list_label_schemas("1")
    store.close()
    assert job.rollback(outcome.journal).kept == []
    assert "label_schemas" not in job.contents()
