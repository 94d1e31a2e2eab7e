"""Skills, which MLflow has since 3.18."""

from tests.scenes.stage import Stage
from tests.versions import SINCE_3_18

ZIP = "https://x/a.zip"
DEFINITION = {"name": "c", "source": "https://x/a.git", "digest": "0123456789abcdef" * 4}


async def scene(stage: Stage) -> None:
    if not SINCE_3_18:
        return
    call = stage.track
    await call("create_skill", "a", "org", "words", created_by="me")
    await call("update_skill", "a", "org", "other words")
    for _ in range(2):
        await call("create_skill_version", "a", "org", "zip", ZIP, created_by="me")
    await call("create_skill_version", "b", "", "zip", ZIP, status="draft")
    await call("bulk_register_skills", [DEFINITION], "org", "me")
    await call("update_skill_version", "a", 1, "org", "deprecated")
    await call("set_skill_tag", "a", "k", "v", "org")
    await call("set_skill_version_tag", "a", 2, "k", "v", "org")
    await call("set_skill_alias", "a", "kept", 2, "org")
    await call("set_skill_alias", "a", "prod", 2, "org")
    await call("get_skill", "a", "org")
    await call("search_skills", "tags.k = 'v'", include_skill_identities=[("org", "a")])
    await call("get_skill_version", "a", 2, "org")
    await call("get_skill_version_by_alias", "a", "prod", "org")
    await call("get_latest_skill_version", "a", "org")
    await call("search_skill_versions", "a", "org", "version > 0")
    await call("delete_skill_alias", "a", "prod", "org")
    await call("delete_skill_version_tag", "a", 2, "k", "org")
    await call("delete_skill_tag", "a", "k", "org")
    await call("delete_skill_version", "a", 1, "org")
    await call("delete_skill", "b")
    await call("delete_skill_and_collect_artifacts", "c", "org")
