"""MLflow's own server on the embedded database: REST, and OpenTelemetry's spans."""

import os
import time

import requests
from mlflow import MlflowClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def exported_spans(count: int) -> bytes:
    """A trace as an OpenTelemetry exporter sends it: a root and its children."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    trace_id, root_id = os.urandom(16), os.urandom(8)
    begin = time.time_ns()
    for index in range(count):
        span = spans.add(trace_id=trace_id, span_id=os.urandom(8) if index else root_id, name=f"step {index}")
        span.start_time_unix_nano, span.end_time_unix_nano = begin + index, begin + 5_000_000
        if index:
            span.parent_span_id = root_id
    return request.SerializeToString()


def test_spans_of_opentelemetry_become_traces(server: str, genesis_uri: str, unique_name: str) -> None:
    experiment_id = MlflowClient(server).create_experiment(unique_name)
    headers = {"x-mlflow-experiment-id": experiment_id, "content-type": "application/x-protobuf"}
    for _ in range(3):
        answer = requests.post(f"{server}/v1/traces", data=exported_spans(10), headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
    for client in (MlflowClient(server), MlflowClient(genesis_uri)):
        traces = client.search_traces(locations=[experiment_id])
        assert [len(trace.data.spans) for trace in traces] == [10, 10, 10]
        assert {trace.info.execution_duration for trace in traces} == {5}


def test_a_run_over_http_is_the_run_in_the_database(server: str, genesis_uri: str, unique_name: str) -> None:
    client = MlflowClient(server)
    run_id = client.create_run(client.create_experiment(unique_name)).info.run_id
    for step in range(3):
        client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
    client.log_text(run_id, "kept", "note.txt")
    client.set_terminated(run_id)
    direct = MlflowClient(genesis_uri)
    assert direct.get_run(run_id).to_dictionary() == client.get_run(run_id).to_dictionary()
    assert [point.step for point in direct.get_metric_history(run_id, "loss")] == [0, 1, 2]
    assert [file.path for file in client.list_artifacts(run_id)] == ["note.txt"]
