"""Experiments: create, read, rename, delete, restore, tags."""

import pytest
from mlflow.entities import ExperimentTag
from mlflow.exceptions import MlflowException

from tests.contract.pair import Pair
from tests.contract.scenes import new_run
from tests.versions import SINCE_3_18

BAD_IDS = ["abc", "1.5", "-", "0x10", "²", "1 2", "run-1", "1e3", "ⅷ"]
ABSENT_IDS = ["7", 7, "-1", " 7 ", "007", "9223372036854775807"]


def test_the_default_experiment_is_there(pair: Pair) -> None:
    assert pair.get_experiment("0").name == "Default"
    assert pair.get_experiment_by_name("Default").experiment_id == "0"


@pytest.mark.parametrize("no_id", [None, "", 0, "0", "00", " 0 ", "+0"])
def test_no_id_means_the_default_experiment(pair: Pair, no_id: object) -> None:
    assert pair.get_experiment(no_id).experiment_id == "0"


@pytest.mark.parametrize("tags", [None, [], [ExperimentTag("a", "1"), ExperimentTag("b.c d", "")]])
def test_created_as_asked(pair: Pair, tags: list[ExperimentTag] | None) -> None:
    experiment_id = pair.create_experiment("one", tags=tags)
    assert experiment_id == "1"
    experiment = pair.get_experiment(experiment_id)
    assert experiment.tags == {tag.key: tag.value for tag in tags or []}
    assert experiment.artifact_location.endswith("/1")
    pair.get_experiment_by_name("one")


@pytest.mark.parametrize(
    "location",
    [
        "relative/folder",
        "./here",
        "/absolute/folder",
        "file:/absolute",
        "file:///absolute/with space",
        "s3://bucket/path",
        "s3://bucket/path/?query=1#fragment",
        "dbfs:/somewhere",
        "mlflow-artifacts:/x",
        "",
        "a" * 1000,
        "ünïcode/päth",
    ],
)
def test_artifact_locations_are_resolved(pair: Pair, location: str) -> None:
    experiment_id = pair.create_experiment("located", location)
    pair.get_experiment(experiment_id)
    pair.get_run(new_run(pair, experiment_id))


@pytest.mark.parametrize("location", ["s3://" + "b" * 2048, "x" * 5000, "../up", "s3://b/../c", "file:x#y"])
def test_odd_artifact_locations_are_treated_alike(pair: Pair, location: str) -> None:
    ours, theirs = pair.both("create_experiment", "odd", location)
    assert ours.code == theirs.code
    if ours.error is None:
        pair.get_experiment(ours.result)


@pytest.mark.parametrize(
    "name", ["n" * 500, "'quoted\"", "a/b", " a ", "naïve ☃ 𝄞", "line\nbreak", "$set", "a.b"]
)
def test_any_text_up_to_500_characters_is_a_name(pair: Pair, name: str) -> None:
    experiment_id = pair.create_experiment(name)
    assert pair.get_experiment(experiment_id).name == name
    assert pair.get_experiment_by_name(name).experiment_id == experiment_id


@pytest.mark.parametrize("name", [" ", "\t\n"])
def test_a_blank_name(pair: Pair, name: str) -> None:
    if SINCE_3_18:
        assert pair.refused("create_experiment", name).error_code == "INVALID_PARAMETER_VALUE"
        assert pair.refused("rename_experiment", "0", name).error_code == "INVALID_PARAMETER_VALUE"
    else:
        assert pair.get_experiment(pair.create_experiment(name)).name == name


def test_bytes_are_no_name(pair: Pair) -> None:
    for call in (pair.ours.create_experiment, pair.oracle.create_experiment):
        with pytest.raises(MlflowException) as caught:
            call(b"bytes")
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("name", [None, "", "n" * 501, 5, ["x"], True])
def test_other_names_are_refused(pair: Pair, name: object) -> None:
    assert pair.refused("create_experiment", name).error_code == "INVALID_PARAMETER_VALUE"
    assert pair.refused("rename_experiment", "0", name).error_code == "INVALID_PARAMETER_VALUE"


def test_a_taken_name_is_refused(pair: Pair) -> None:
    first = pair.create_experiment("taken")
    assert pair.refused("create_experiment", "taken").error_code == "RESOURCE_ALREADY_EXISTS"
    pair.delete_experiment(first)
    assert pair.refused("create_experiment", "taken").error_code == "RESOURCE_ALREADY_EXISTS"
    assert pair.create_experiment("Taken") == "2"
    assert pair.create_experiment("taken ") == "3"


def test_a_deleted_experiment_is_still_found(pair: Pair) -> None:
    experiment_id = pair.create_experiment("gone")
    pair.delete_experiment(experiment_id)
    assert pair.get_experiment(experiment_id).lifecycle_stage == "deleted"
    assert pair.get_experiment_by_name("gone").lifecycle_stage == "deleted"
    assert pair.get_experiment_by_name("never") is None


ON_ONE_EXPERIMENT: list[tuple[str, list[object]]] = [
    ("get_experiment", []),
    ("delete_experiment", []),
    ("restore_experiment", []),
    ("rename_experiment", ["new"]),
    ("set_experiment_tag", [ExperimentTag("k", "v")]),
    ("delete_experiment_tag", ["k"]),
    ("create_run", ["user", 1, [], None]),
]


@pytest.mark.parametrize(("method", "arguments"), ON_ONE_EXPERIMENT)
def test_unknown_experiments_and_ids_that_are_no_numbers_are_refused(
    pair: Pair, method: str, arguments: list[object]
) -> None:
    for bad in BAD_IDS:
        assert pair.refused(method, bad, *arguments).error_code == "INVALID_PARAMETER_VALUE"
    for absent in ABSENT_IDS:
        assert pair.refused(method, absent, *arguments).error_code == "RESOURCE_DOES_NOT_EXIST"


def test_renaming(pair: Pair) -> None:
    experiment_id = pair.create_experiment("before")
    pair.rename_experiment(experiment_id, "after")
    assert pair.get_experiment(experiment_id).name == "after"
    assert pair.get_experiment_by_name("before") is None
    pair.rename_experiment(experiment_id, "after")
    assert pair.create_experiment("before") == "2"
    pair.delete_experiment(experiment_id)
    assert pair.refused("rename_experiment", experiment_id, "again").error_code == "INVALID_STATE"


def test_delete_and_restore_move_the_runs(pair: Pair) -> None:
    experiment_id = pair.create_experiment("moved")
    kept, deleted_before = new_run(pair, experiment_id), new_run(pair, experiment_id)
    elsewhere = new_run(pair)
    pair.delete_run(deleted_before)
    pair.delete_experiment(experiment_id)
    assert pair.get_run(kept).info.lifecycle_stage == "deleted"
    assert pair.get_run(elsewhere).info.lifecycle_stage == "active"
    assert pair.refused("delete_experiment", experiment_id).error_code == "RESOURCE_DOES_NOT_EXIST"
    pair.restore_experiment(experiment_id)
    assert pair.get_run(kept).info.lifecycle_stage == "active"
    assert pair.get_run(deleted_before).info.lifecycle_stage == "active"
    assert pair.refused("restore_experiment", experiment_id).error_code == "RESOURCE_DOES_NOT_EXIST"


def test_deleting_and_restoring_touches_the_update_time(pair: Pair) -> None:
    experiment_id = pair.create_experiment("timed")
    times = [pair.get_experiment(experiment_id).last_update_time]
    for method in ("delete_experiment", "restore_experiment"):
        getattr(pair, method)(experiment_id)
        times.append(pair.get_experiment(experiment_id).last_update_time)
    assert times == sorted(times)
    assert times[-1] > times[0]


def test_the_default_experiment_can_be_deleted_and_restored(pair: Pair) -> None:
    pair.delete_experiment("0")
    assert pair.refused("create_run", "", "user", 1, [], None).error_code == "INVALID_PARAMETER_VALUE"
    pair.restore_experiment("0")
    new_run(pair)


def test_tags_are_set_replaced_and_deleted(pair: Pair) -> None:
    experiment_id = pair.create_experiment("tagged", tags=[ExperimentTag("old", "1")])
    for key, value in [("old", "2"), ("a.b", "dot"), ("a b/c-d_e:f", "all"), ("empty", ""), ("é", "ü")]:
        pair.set_experiment_tag(experiment_id, ExperimentTag(key, value))
    assert pair.get_experiment(experiment_id).tags["a.b"] == "dot"
    pair.delete_experiment_tag(experiment_id, "a.b")
    assert "a.b" not in pair.get_experiment(experiment_id).tags
    assert pair.refused("delete_experiment_tag", experiment_id, "a.b").error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair.refused("delete_experiment_tag", experiment_id, "a").error_code == "RESOURCE_DOES_NOT_EXIST"
    pair.get_experiment(experiment_id)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("k" * 250, "v" * 20_000),
        ("k" * 251, "v"),
        ("k", "v" * 20_001),
        (None, "v"),
        ("", "v"),
        ("../up", "v"),
        ("a//b", "v"),
        ("a\tb", "v"),
        ("/base", "v"),
        ("$dollar", "v"),
        ("percent%", "v"),
        ("mlflow.trace.archivalRetention", "soon"),
        ("mlflow.note.content", "# text"),
    ],
)
def test_tag_limits(pair: Pair, key: str | None, value: str) -> None:
    experiment_id = pair.create_experiment("limits")
    ours, theirs = pair.both("set_experiment_tag", experiment_id, ExperimentTag(key, value))
    assert ours.code == theirs.code
    assert str(ours.error) == str(theirs.error)
    ours, theirs = pair.both("create_experiment", "with tag", None, [ExperimentTag(key, value)])
    assert (ours.result, ours.code) == (theirs.result, theirs.code)
    pair.search_experiments()


def test_a_deleted_experiment_takes_no_tags(pair: Pair) -> None:
    experiment_id = pair.create_experiment("gone", tags=[ExperimentTag("k", "v")])
    pair.delete_experiment(experiment_id)
    refusal = pair.refused("set_experiment_tag", experiment_id, ExperimentTag("k", "w"))
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    refusal = pair.refused("delete_experiment_tag", experiment_id, "k")
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"


def test_only_active_experiments_are_kept_by_the_filter(pair: Pair) -> None:
    one, two, gone = (pair.create_experiment(name) for name in ("one", "two", "gone"))
    pair.delete_experiment(gone)
    assert sorted(pair.filter_active_experiment_ids([one, two, gone, "0", "99"])) == ["0", one, two]
    assert pair.filter_active_experiment_ids([]) == []
    assert pair.filter_active_experiment_ids([gone]) == []
    pair.filter_active_experiment_ids([one, one])
    assert pair.refused("filter_active_experiment_ids", ["x"]).error_code == "INVALID_PARAMETER_VALUE"
