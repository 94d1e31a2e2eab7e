"""Random histories of calls, played into both stores; every answer on the way must be the same."""

import itertools
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    Metric,
    Param,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException

from tests.contract.pair import Pair
from tests.contract.scenes import UNKNOWN_RUN

_numbers = itertools.count()

KEYS = st.sampled_from(["a", "b.c", "d/e"])
TEXTS = st.sampled_from(["", "x", "X", "xy", "x_%"])
VIEWS = st.sampled_from([ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL])
STEPS = st.integers(-1, 2)

# NaN and numbers never meet at one step and timestamp: there SQL compares the 0 it stores for NaN with the
# number, which docs/differences.md lists.
NUMBER_POINTS = st.builds(Metric, KEYS, st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.integers(0, 2), STEPS)
NAN_POINTS = st.builds(Metric, KEYS, st.just(float("nan")), st.integers(10, 11), STEPS)
METRICS = st.one_of(NUMBER_POINTS, NUMBER_POINTS, NAN_POINTS)
PARAMS = st.builds(Param, KEYS, TEXTS)
TAGS = st.builds(RunTag, KEYS, TEXTS)

_COMPARE = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
_NUMBER = st.sampled_from(["-1", "0", "0.5", "2"])
_MATCH = st.sampled_from(["=", "!=", "LIKE", "ILIKE"])
_PATTERN = st.sampled_from(["''", "'x'", "'x%'", "'%y'", "'_'", "'X_'"])
_PRESENCE = st.sampled_from(["IS NULL", "IS NOT NULL"])
CLAUSES = st.one_of(
    st.builds("metrics.`{}` {} {}".format, KEYS, _COMPARE, _NUMBER),
    st.builds("params.`{}` {} {}".format, KEYS, _MATCH, _PATTERN),
    st.builds("tags.`{}` {} {}".format, KEYS, _MATCH, _PATTERN),
    st.builds("{}.`{}` {}".format, st.sampled_from(["params", "tags"]), KEYS, _PRESENCE),
    st.builds("start_time {} {}".format, _COMPARE, st.integers(0, 4)),
    st.builds("run_name {} {}".format, _MATCH, _PATTERN),
    st.builds("status {} 'RUNNING'".format, st.sampled_from(["=", "!="])),
    st.builds("dataset.name {} {}".format, st.sampled_from(["=", "!="]), st.sampled_from(["'one'", "'two'"])),
)
FILTERS = st.lists(CLAUSES, max_size=3).map(" AND ".join)
_METRIC, _PARAM, _TAG = (
    st.builds(kind.format, KEYS) for kind in ("metrics.`{}`", "params.`{}`", "tags.`{}`")
)
_ATTRIBUTE = st.sampled_from(["start_time", "end_time", "run_name", "status"])
ORDERS = st.lists(
    st.tuples(st.one_of(_METRIC, _PARAM, _TAG, _ATTRIBUTE), st.sampled_from(["ASC", "DESC"])),
    max_size=3,
    unique_by=lambda clause: clause[0],
).map(lambda clauses: [" ".join(clause) for clause in clauses])


class TrackingHistory(RuleBasedStateMachine):
    """Every example works in experiments of its own, so none needs an empty database."""

    experiments = Bundle("experiments")
    runs = Bundle("runs")

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.pair = pair
        self.created: list[str] = []

    def play(self, method: str, *arguments: Any) -> Any:
        """Both may refuse; that they do it alike is checked by the pair."""
        try:
            return getattr(self.pair, method)(*arguments)
        except MlflowException as error:
            return error

    @initialize(target=experiments)
    def start(self) -> str:
        return self.new_experiment()

    @precondition(lambda self: len(self.created) < 3)
    @rule(target=experiments)
    def create_experiment(self) -> str:
        return self.new_experiment()

    def new_experiment(self) -> str:
        experiment_id: str = self.pair.create_experiment(f"experiment {next(_numbers)}")
        self.created.append(experiment_id)
        return experiment_id

    @rule(experiment=experiments)
    def delete_experiment(self, experiment: str) -> None:
        self.play("delete_experiment", experiment)

    @rule(experiment=experiments)
    def restore_experiment(self, experiment: str) -> None:
        self.play("restore_experiment", experiment)

    @rule(experiment=experiments)
    def rename_experiment(self, experiment: str) -> None:
        self.play("rename_experiment", experiment, f"renamed {next(_numbers)}")
        self.pair.get_experiment(experiment)

    @rule(
        target=runs,
        experiment=experiments,
        start_time=st.integers(0, 4),
        tags=st.lists(TAGS, max_size=2, unique_by=lambda tag: tag.key),
        name=st.sampled_from([None, "x", "Xy"]),
    )
    def create_run(self, experiment: str, start_time: int, tags: list[RunTag], name: str | None) -> str:
        created = self.play("create_run", experiment, "user", start_time, tags, name)
        return UNKNOWN_RUN if isinstance(created, MlflowException) else created.info.run_id

    @rule(run=runs, method=st.sampled_from(["delete_run", "restore_run"]))
    def move_run(self, run: str, method: str) -> None:
        if method == "delete_run" or not self.is_in_deleted_experiment(run):  # docs/differences.md
            self.play(method, run)

    def is_in_deleted_experiment(self, run: str) -> bool:
        ours = self.pair.ours
        try:
            experiment_id = ours.get_run(run).info.experiment_id
        except MlflowException:
            return False
        return bool(ours.get_experiment(experiment_id).lifecycle_stage == LifecycleStage.DELETED)

    @rule(run=runs, metric=METRICS)
    def log_metric(self, run: str, metric: Metric) -> None:
        self.play("log_metric", run, metric)

    @rule(run=runs, param=PARAMS)
    def log_param(self, run: str, param: Param) -> None:
        self.play("log_param", run, param)

    @rule(run=runs, tag=st.one_of(TAGS, st.builds(RunTag, st.just("mlflow.runName"), TEXTS)))
    def set_tag(self, run: str, tag: RunTag) -> None:
        self.play("set_tag", run, tag)

    @rule(run=runs, key=KEYS)
    def delete_tag(self, run: str, key: str) -> None:
        self.play("delete_tag", run, key)

    @rule(
        run=runs,
        metrics=st.lists(METRICS, max_size=6),
        params=st.lists(PARAMS, max_size=3),
        tags=st.lists(TAGS, max_size=3),
    )
    def log_batch(self, run: str, metrics: list[Metric], params: list[Param], tags: list[RunTag]) -> None:
        self.play("log_batch", run, metrics, params, tags)

    @rule(
        run=runs,
        status=st.sampled_from([None, *RunStatus.all_status()]),
        end_time=st.sampled_from([None, 0, 5]),
        name=st.sampled_from([None, "", "x", "z"]),
    )
    def update_run_info(self, run: str, status: int | None, end_time: int | None, name: str | None) -> None:
        self.play("update_run_info", run, status, end_time, name)

    @rule(run=runs, name=st.sampled_from(["one", "two"]), context=st.sampled_from([None, "train", "test"]))
    def log_inputs(self, run: str, name: str, context: str | None) -> None:
        tags = [InputTag("mlflow.data.context", context)] if context else []
        self.play("log_inputs", run, [DatasetInput(Dataset(name, "1", "local", "here"), tags)])
        self.pair._search_datasets(self.created)

    @rule(run=runs, key=KEYS, size=st.sampled_from([None, 1, 3]))
    def read_run(self, run: str, key: str, size: int | None) -> None:
        self.play("get_run", run)
        self.pair.pages("get_metric_history", run, key, size)
        self.pair.get_metric_history_bulk_interval([run], key, size or 2, None, None)

    @rule(filter_string=FILTERS, order_by=ORDERS, view=VIEWS, size=st.sampled_from([1, 3, 100]))
    def search_runs(self, filter_string: str, order_by: list[str], view: int, size: int) -> None:
        self.pair.pages("_search_runs", self.created, filter_string, view, size, order_by)

    @rule(run=runs)
    def delete_run_for_good(self, run: str) -> None:
        self.play("delete_run", run)
        self.play("_hard_delete_run", run)

    def teardown(self) -> None:
        self.pair._search_runs(self.created, "", ViewType.ALL, 100, None, None)
        for experiment_id in self.created:
            self.pair.get_experiment(experiment_id)


@pytest.mark.timeout(400)
def test_random_histories(module_pair: Pair) -> None:
    run_state_machine_as_test(
        lambda: TrackingHistory(module_pair),
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize="CI" in os.environ,
            # Shrinking plays thousands of calls: minutes that only pay where somebody waits to debug.
            phases=[Phase.generate] if "CI" in os.environ else [Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
