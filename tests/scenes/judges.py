"""Scorers and their online scoring."""

from tests.scenes.stage import Stage

SCORER = '{"third_party_scorer_data": {"model": "openai:/gpt-4"}}'


async def scene(stage: Stage) -> None:
    call = stage.track
    version = await call("register_scorer", "0", "judge", SCORER)
    await call("register_scorer", "0", "judge", SCORER)
    await call("register_scorer", "0", "judge", '{"third": true}')
    await call("register_scorer", "0", "doomed", SCORER)
    await call("get_scorer", "0", "judge", 1)
    await call("list_scorers", "0")
    await call("list_scorers_across_experiments", ["0"])
    await call("list_scorer_versions", "0", "judge")
    await call("resolve_endpoint_in_scorer", version)
    await call("upsert_online_scoring_config", "0", "judge", 0.0, "status = 'OK'")
    await call("get_online_scoring_configs", [version.scorer_id])
    await call("get_active_online_scorers")
    await call("delete_scorer", "0", "judge", 2)
    await call("delete_scorer", "0", "doomed")
