"""Registered things with versions, aliases and tags: the part of the table of kinds that workspaces name."""

import json

from genesis_flow.areas.mcp import documents as mcp
from genesis_flow.areas.mcp.documents import SERVERS, MCPContentFields, MCPServerFields
from genesis_flow.areas.skills import documents as skills
from genesis_flow.areas.skills.documents import SKILLS, SkillFields
from genesis_flow.compat.skills import HAS_SKILLS, search_text
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.documents.plain import Document
from genesis_flow.importers.kind import Child, Column, Kind, Rows, columns

# The call that made it: nobody repeats one of another store.
CALL = "import"
_MADE = columns(
    "created_by t",
    "last_updated_by t",
    "created_at I creation_time",
    "last_updated_at I last_update_time",
)


def _kept(*texts: str) -> tuple[Column, ...]:
    return (*columns(*texts), *_MADE)


def _parts(thing: str, owner: tuple[str, ...], number: str, versions: tuple[Column, ...]) -> tuple[Rows, ...]:
    """The tables of versions, aliases and tags, whose names begin with that of the thing."""
    tag = columns("key T", "value t")
    made = ("created_at", "version") if number == "T" else ("version",)
    call = (("call", CALL),)
    return (
        Rows("tags", f"{thing}_tags", owner, tag, "map"),
        Rows("aliases", f"{thing}_aliases", owner, columns("alias T", f"version {number}"), "list"),
        Rows("versions", f"{thing}_versions", owner, versions, "list", constants=call, order=made),
        Rows("tags", f"{thing}_version_tags", owner, tag, "map", of_items=("versions", "version")),
    )


def _divide_server(server: Document) -> list[tuple[type[Declared], Document]]:
    """The long parts of the versions, which have documents of their own."""
    contents: list[Document] = []
    for version in server["versions"]:
        server_json, tools = version.pop("server_json"), version.pop("tools", None)
        # Some databases have the text of JSON as JSON.
        tools = json.loads(tools) if isinstance(tools, str) else tools
        version["content"] = SEPARATOR.join((server["_id"], version["version"], CALL))
        shown = {part: server_json[part] for part in ("description", "icons") if part in server_json}
        version["shows"] = json.dumps(shown)
        content = {
            "_id": version["content"],
            "workspace": server["workspace"],
            "server": server["_id"],
            "server_json": json.dumps(server_json),
        }
        contents.append(content if tools is None else {**content, "tools": json.dumps(tools)})
    SERVERS.settle(server)
    hints = mcp.hints(server)
    for version, content in zip(server["versions"], contents, strict=True):
        content["hints"] = hints.get(content["_id"], [])
        mcp.version_entity(server, version, content)
    mcp.server_entity(server, {content["_id"]: content for content in contents})
    return [(MCPContentFields, content) for content in contents]


def _derive_skill(skill: Document) -> None:
    skill["search_text"] = search_text(skill["name"], skill.get("description"))
    SKILLS.settle(skill)


def _check_skill(skill: Document) -> None:
    if HAS_SKILLS:
        skills.skill_entity(skill)
        for version in skill["versions"]:
            skills.version_entity(skill, version)


REGISTRIES = (
    Kind(
        name="mcp_server",
        declared=MCPServerFields,
        table="mcp_servers",
        key=("name",),
        of_experiment=False,
        named=True,
        columns=_kept("name T", "display_name t", "description t", "icons s"),
        rows=(
            *_parts(
                "mcp_server",
                ("name",),
                "T",
                _kept(
                    "version T",
                    "version_major I major",
                    "version_minor I minor",
                    "version_patch I patch",
                    "version_prerelease_sort_key T prerelease",
                    "server_json J",
                    "status T",
                    "tools j",
                    "source t",
                    "connect_options s",
                ),
            ),
            Rows(
                "endpoints",
                "mcp_access_endpoints",
                ("server_name",),
                _kept("id T", "url T", "transport_type T", "server_version t", "server_alias t"),
                "list",
            ),
        ),
        constants={"born": CALL},
        counters=("revision",),
        divide=_divide_server,
        children=(Child("mcp_contents", "server"),),
    ),
    Kind(
        name="skill",
        declared=SkillFields,
        table="skills",
        key=("organization", "name"),
        of_experiment=False,
        named=True,
        columns=_kept("organization T", "name T", "description t", "icons s"),
        rows=_parts(
            "skill",
            ("organization", "name"),
            "I",
            _kept(
                "version I",
                "source_type t",
                "source t",
                "ref t",
                "subpath t",
                "digest t",
                "status T",
            ),
        ),
        constants={"born": CALL},
        counters=("revision",),
        derive=_derive_skill,
        check=_check_skill,
    ),
)
