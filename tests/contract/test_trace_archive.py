"""Archiving spans, played into both stores, each into a directory of its own."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ExperimentTag, Span
from mlflow.entities.trace_state import TraceState

from tests.contract.pair import Pair
from tests.contract.test_trace_ingest import family
from tests.contract.trace_scenes import span, stated, trace_id

ONE, TWO, THREE = (trace_id(number) for number in (1, 2, 3))
NOW = "mlflow.trace.archiveNow"


class Archives:
    """An archive for each store; every pass must archive as many traces in both."""

    def __init__(self, pair: Pair, folder: Path) -> None:
        self.pair = pair
        self.folder = folder

    def archive(self, retention: str = "1d", **options: Any) -> int:
        counts = [
            store.archive_traces(
                resolved_trace_archival_location=f"file://{self.folder}/{name}",
                broader_retention=retention,
                **options,
            )
            for name, store in (("ours", self.pair.ours), ("theirs", self.pair.oracle))
        ]
        assert counts[0] == counts[1]
        return int(counts[0])

    def spans(self, identifier: str) -> list[Span]:
        """The spans of a trace, the same in both stores."""
        ours, theirs = (
            store.get_trace(identifier).data.spans for store in (self.pair.ours, self.pair.oracle)
        )
        key = "start_time_unix_nano"
        assert sorted((one.to_dict() for one in ours), key=lambda one: one[key]) == sorted(
            (one.to_dict() for one in theirs), key=lambda one: one[key]
        )
        return list(ours)

    def files(self) -> int:
        counts = {len(list((self.folder / name).rglob("traces.pb"))) for name in ("ours", "theirs")}
        assert len(counts) == 1
        return counts.pop()


@pytest.fixture
def archives(pair: Pair, tmp_path: Path) -> Archives:
    return Archives(pair, tmp_path)


def test_old_traces_are_archived_and_read_from_there(pair: Pair, archives: Archives) -> None:
    for identifier in (ONE, TWO):
        pair.log_spans("0", family(identifier))
    before = [each.to_dict() for each in archives.spans(ONE)]
    assert archives.archive(max_traces_per_pass=1) == 1
    assert archives.archive() == 1
    assert archives.archive() == 0
    assert archives.files() == 2
    after = [each.to_dict() for each in archives.spans(ONE)]
    assert [each["name"] for each in after] == [each["name"] for each in before]
    assert pair.ours.get_trace_info(ONE).tags["mlflow.trace.spansLocation"] == "ARCHIVE_REPO"
    assert len(pair.ours.batch_get_traces([ONE, TWO])) == 2
    assert len(pair.ours.search_traces(["0"], "span.name = 'part'")[0]) == 2
    assert pair.refused("log_spans", "0", family(ONE)).error_code == "INVALID_STATE"
    assert pair.refused("start_trace", stated(ONE)).error_code == "INVALID_STATE"
    assert pair.delete_traces("0", trace_ids=[ONE]) == 1
    assert archives.files() == 1


def test_what_is_not_archived(pair: Pair, archives: Archives) -> None:
    pair.log_spans("0", [span(ONE, 2, 1)])  # in progress
    pair.start_trace(stated(TWO))  # no spans
    pair.log_spans("0", family(THREE))
    assert archives.archive("999999d") == 0
    kept = pair.create_experiment(
        "kept", None, [ExperimentTag("mlflow.trace.archivalRetention", _duration("999999d"))]
    )
    pair.log_spans(kept, family(trace_id(4)))
    assert archives.archive("1d", long_retention_allowlist=[kept]) == 1
    assert archives.archive("1d") == 1


def _duration(text: str) -> str:
    return json.dumps({"type": "duration", "value": text})


def test_archiving_now(pair: Pair, archives: Archives) -> None:
    pair.log_spans("0", family(ONE))
    pair.log_spans("0", [span(TWO, 2, 1)])
    pair.set_experiment_tag("0", ExperimentTag(NOW, "{}"))
    assert archives.archive("999999d") == 1
    assert NOW in pair.get_experiment("0").tags  # one trace is still in progress
    pair.log_spans("0", [span(TWO, 1)])
    assert archives.archive("999999d") == 1
    assert NOW not in pair.get_experiment("0").tags


def test_a_span_that_cannot_be_archived(
    pair: Pair, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.log_spans("0", family(ONE))
    pair.ours.log_spans("0", family(ONE))

    def fail(_spans: Any) -> bytes:
        raise ValueError("broken")

    for module in ("genesis_flow.areas.traces.archive", "mlflow.store.tracking.sqlalchemy_store"):
        monkeypatch.setattr(f"{module}.spans_to_traces_data_pb", fail)
    assert archives.archive() == 0
    assert pair.ours.get_trace_info(ONE).tags["mlflow.trace.archivalFailure"] == "MALFORMED_TRACE"
    monkeypatch.undo()
    assert archives.archive() == 0
    assert pair.get_trace_info(ONE).state == TraceState.OK


def test_an_archive_that_cannot_be_written(
    pair: Pair, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.log_spans("0", family(ONE))
    repository = "mlflow.store.artifact.local_artifact_repo.LocalArtifactRepository"

    def fail(_self: Any, _data: bytes) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(f"{repository}.upload_archived_trace_data_bytes", fail, raising=False)
        assert archives.archive() == 0
    assert len(archives.spans(ONE)) == 4
    assert archives.archive() == 1


def test_bad_input(pair: Pair) -> None:
    for location, retention, most in (
        ("", "1d", None),
        ("s3://bucket", "", None),
        ("s3://bucket", "soon", None),
        ("s3://bucket", "1d", 0),
    ):
        refusal = pair.refused(
            "archive_traces",
            resolved_trace_archival_location=location,
            broader_retention=retention,
            max_traces_per_pass=most,
        )
        assert refusal.error_code == "INVALID_PARAMETER_VALUE"


def test_experiments_say_how_long(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pair.ours.supports_trace_archival
    config = tmp_path / "archival.yaml"
    config.write_text("trace_archival:\n  enabled: true\n  location: s3://bucket/archive\n  retention: 30d\n")
    monkeypatch.setenv("MLFLOW_TRACE_ARCHIVAL_CONFIG", str(config))
    pair.set_experiment_tag("0", ExperimentTag("mlflow.trace.archivalRetention", _duration("7d")))
    assert pair.get_experiment("0").effective_trace_archival_retention == "7d"
    pair.create_experiment("other")
    assert pair.get_experiment_by_name("other").effective_trace_archival_retention == "30d"
    assert len(pair.search_experiments()) == 2
