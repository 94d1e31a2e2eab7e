"""Prompts, and their links to runs, logged models and traces."""

from tests.scenes.stage import ONE, Stage


async def scene(stage: Stage) -> None:
    call = stage.register
    await call("create_prompt", "greeting", "d", {"k": "v"})
    await call("get_prompt", "greeting")
    await call("search_prompts")
    await call("set_prompt_tag", "greeting", "a", "b")
    await call("delete_prompt_tag", "greeting", "k")
    hello = await call("create_prompt_version", "greeting", "Hello {{name}}")
    await call("create_prompt_version", "greeting", "Hi {{name}}")
    await call("get_prompt_version", "greeting", 1)
    await call("search_prompt_versions", "greeting")
    await call("set_prompt_alias", "greeting", "prod", 1)
    await call("get_prompt_version_by_alias", "greeting", "prod")
    await call("delete_prompt_alias", "greeting", "prod")
    await call("set_prompt_version_tag", "greeting", 1, "a", "b")
    await call("delete_prompt_version_tag", "greeting", 1, "a")
    if stage.linked_uri is not None:
        await call("link_prompt_version_to_run", "greeting", "1", stage["run"])
        await call("link_prompt_version_to_model", "greeting", "1", stage["model"])
        await call("link_prompts_to_trace", [hello], ONE)
    await call("delete_prompt_version", "greeting", 2)
    await call("create_prompt", "doomed")
    await call("delete_prompt", "doomed")
