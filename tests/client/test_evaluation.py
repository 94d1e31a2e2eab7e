"""``mlflow.genai.evaluate`` with a code scorer: traces, assessments, datasets and runs together."""

from tests.client.conftest import Run


def test_an_agent_is_evaluated(run_program: Run, genesis_uri: str, unique_name: str) -> None:
    found = run_program("evaluate", genesis_uri, unique_name).answer
    assert found["scores"] == [0.5, 0.5]
    assert found["records"] == 2
    assert found["judged"] == [["Berlin", True], ["Paris", False]]
