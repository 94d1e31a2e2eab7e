"""A traced application through MLflow's fluent API, and what another process and the server see of it."""

import pytest

from tests.client.conftest import Run

BERLIN, OSLO, ATLANTIS = (f"How long is {city}?" for city in ("Berlin", "Oslo", "Atlantis"))


@pytest.fixture
def traced(run_program: Run, genesis_uri: str, unique_name: str) -> dict:
    return run_program("agent", genesis_uri, unique_name).answer


def test_an_agent_is_traced_judged_and_found(traced: dict) -> None:
    assert traced["spans"] == [["agent", "AGENT"], ["ask_model", "LLM"], ["look_up", "TOOL"]]
    assert (traced["state"], traced["response"]) == ("OK", '"Berlin has 6 letters"')
    assert traced["tokens"] == {"input_tokens": 19, "output_tokens": 2, "total_tokens": 21}
    assert traced["feedback"] == {"helpful": True, "answer": "6"}
    assert traced["of run"] == [ATLANTIS, BERLIN, OSLO]
    assert traced["failed"] == traced["disliked"] == traced["tool errors"] == [ATLANTIS]
    assert traced["in text"] == [OSLO]
    assert traced["session"] == [BERLIN, OSLO]
