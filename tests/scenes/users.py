"""Users of the login, their roles, and what these may."""

from tests.scenes.stage import Stage

PASSWORD = "a password of the scene"


async def scene(stage: Stage) -> None:
    await people(stage)
    await roles(stage)
    await members(stage)
    await granted(stage)
    call = stage.track
    await call("delete_role", stage["doomed role"])
    await call("delete_roles_for_workspace", "scene")
    await call("delete_user", "doomed")


async def people(stage: Stage) -> None:
    call = stage.track
    for name in ("keeper", "doomed"):
        stage[f"{name} user"] = (await call("create_user", name, PASSWORD)).id
    await call("has_user", "keeper")
    await call("get_user", "keeper")
    await call("authenticate_user", "keeper", PASSWORD)
    await call("update_user", "keeper", is_admin=True)
    await call("list_users")


async def roles(stage: Stage) -> None:
    call = stage.track
    for name in ("role", "doomed role"):
        stage[name] = (await call("create_role", f"a {name}", "default", "of the scene")).id
    await call("get_role", stage["role"])
    await call("get_role_by_name", "default", "a role")
    await call("list_roles", ["default"])
    await call("update_role", stage["role"], description="of all scenes")
    added = await call("add_role_permission", stage["role"], "experiment", "*", "READ")
    await call("get_role_permission", added.id)
    await call("update_role_permission", added.id, "EDIT")
    await call("list_role_permissions", stage["role"])
    await call("remove_role_permission", added.id)


async def members(stage: Stage) -> None:
    call, user = stage.track, stage["keeper user"]
    for role in ("role", "doomed role"):
        await call("assign_role_to_user", user, stage[role])
    await call("list_user_roles", user)
    await call("list_user_roles_for_workspace", user, "default")
    await call("list_role_users", stage["role"])
    await call("list_users_with_roles")
    await call("user_has_any_role_in_workspace", user, "default")
    await call("list_user_present_workspaces", user)
    await call("list_workspace_admin_workspaces", user)
    await call("is_workspace_admin", user, "default")
    await call("is_workspace_admin_of_any_of_users_workspaces", user, stage["doomed user"])
    await call("list_accessible_workspace_names", "keeper")
    await call("unassign_role_from_user", user, stage["doomed role"])


async def granted(stage: Stage) -> None:
    call = stage.track
    for user in ("keeper", "doomed"):
        await call("grant_user_permission", user, "experiment", "17", "READ")
    await call("grant_user_permissions", "keeper", [("experiment", "18", "READ")])
    await call("grant_user_resource_permission", "keeper", "registered_model", "old", "MANAGE")
    await call("list_grants", stage["keeper user"], "default", ["experiment"])
    await call("list_role_grants_for_user_in_workspace", stage["keeper user"], "default", "experiment")
    await call("list_gateway_endpoint_permissions", "keeper")
    await call("list_named_role_grants_for_resource", ["experiment"], ["17"])
    await call("list_per_user_grants_for_resource", ["experiment"], ["17"])
    await call("rename_grants_for_resource", "registered_model", "old", "new")
    await call("revoke_user_resource_permission", "keeper", "registered_model", "new")
    await call("delete_grants_for_resource", "experiment", "17")
    await call("delete_workspace_permissions_for_workspace", "default")
