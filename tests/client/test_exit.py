"""The end of a program that has logged."""

from mlflow import MlflowClient

from tests.client.conftest import Run


def test_nothing_is_waited_for_at_the_end_of_a_program(run_program: Run, store_uri: str) -> None:
    """PyMongo joins its threads in an exit handler, and they sleep half a second at a time."""
    outcome = run_program("leave", store_uri)
    assert outcome.answer["while it ran"], "PyMongo keeps its threads elsewhere: see who joins them now"
    assert outcome.answer["at the end"] == []
    assert "Exception ignored" not in outcome.stderr
    (run,) = MlflowClient(store_uri).search_runs(["0"])
    assert run.info.status == "FINISHED", "MLflow's exit handler could still write"
