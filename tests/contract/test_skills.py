"""Skills, which MLflow has since 3.18: the cases K1 to K8, bad input, searches."""

from typing import Any

import pytest

from tests.contract.pair import Pair
from tests.versions import SINCE_3_18, before_3_18, since_3_18

if SINCE_3_18:
    from mlflow.entities.skill import SkillStatus

DIGEST = "0123456789abcdef" * 4
REPOSITORY = "https://example.com/skills.git"


def definition(name: str, **changed: Any) -> dict[str, Any]:
    return {"name": name, "source": REPOSITORY, "ref": "main", "subpath": name, "digest": DIGEST, **changed}


@before_3_18
def test_who_asks_an_older_mlflow_is_told(pair: Pair) -> None:
    for call, *args in (
        ("get_skill", "a"),
        ("bulk_register_skills", []),
        ("search_skills",),
        ("delete_skill", "a"),
    ):
        with pytest.raises(Exception, match=r"Skills need MLflow 3\.18") as caught:
            getattr(pair.ours, call)(*args)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@since_3_18
@pytest.mark.parametrize("name", ["a", "a-b", "a--b", "-a", "A", "a_b", "x" * 64, "x" * 65, "", None, "a b"])
@pytest.mark.parametrize("organization", ["", "a.b-c", "a..b", "A", None, "x" * 65])
def test_names(pair: Pair, name: Any, organization: Any) -> None:
    ours, theirs = pair.both("create_skill", name, organization)
    assert (ours.code, str(ours.error)) == (theirs.code, str(theirs.error))
    if ours.error is None:
        pair.get_skill(name, organization)
        pair.refused("create_skill", name, organization)
    else:
        pair.refused("get_skill", name, organization)
        pair.refused("create_skill_version", name, organization)


@since_3_18
def test_skills(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ICON_URL_ALLOW_PRIVATE_IPS", "true")
    icon = {"src": "https://127.0.0.1/a.png", "source": "version"}
    pair.create_skill("a", "", "some\n  words", [icon], "me")
    pair.create_skill("a", "org")
    for change in (
        {"description": "other", "last_updated_by": "you"},
        {"icons": []},
        {"icons": None, "description": None},
        {"description": ""},
        {},
    ):
        pair.update_skill("a", **change)
        pair.get_skill("a")
    for icons in ("text", [{}], [{"src": "http://127.0.0.1/a"}]):
        pair.refused("update_skill", "a", icons=icons)
        pair.refused("create_skill", "b", icons=icons)
    for call in ("get_skill", "update_skill", "delete_skill", "delete_skill_and_collect_artifacts"):
        pair.refused(call, "none")
        pair.refused(call, "a", "other")
    pair.delete_skill("a")
    pair.refused("get_skill", "a")
    pair.get_skill("a", "org")


@since_3_18
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"source_type": "git", "source": REPOSITORY, "ref": "main", "subpath": "x", "digest": DIGEST},
        {"source_type": "oci", "source": "image"},
        {"source_type": "zip", "source": "https://x", "subpath": "y"},
        {"source_type": "mlflow", "source": "mlflow-artifacts:/skills/a/x"},
        {"source": "words"},
        {"source_type": "other"},
        {"source": "x" * 2048},
        {"source": "x" * 2049},
        {"source_type": "oci", "ref": "main"},
        {"digest": "A" * 64},
        {"digest": "a" * 63},
        {"status": "draft"},
        {"status": "deprecated"},
        {"status": "odd"},
        {"status": None},
    ],
    ids=str,
)
def test_new_versions(pair: Pair, given: dict[str, Any]) -> None:
    """K2: active unless it is said otherwise."""
    ours, theirs = pair.both("create_skill_version", "a", created_by="me", **given)
    assert (ours.code, str(ours.error)) == (theirs.code, str(theirs.error))
    if ours.error is None:
        assert pair.create_skill_version("a", **given).version == 2
        pair.get_skill_version("a", 1)
        pair.get_latest_skill_version("a")
        pair.get_skill("a")


@since_3_18
def test_numbers(pair: Pair) -> None:
    """K1: they go on over deleted versions, and begin again when the skill was deleted."""
    for number in (1, 2, 3):
        assert pair.create_skill_version("a", status="draft").version == number
    pair.delete_skill_version("a", 3)
    assert pair.create_skill_version("a").version == 4
    for version in (3, 9):
        pair.refused("get_skill_version", "a", version)
        pair.refused("delete_skill_version", "a", version)
        pair.refused("update_skill_version", "a", version, status="active")
        pair.refused("set_skill_alias", "a", "x", version)
        pair.refused("set_skill_version_tag", "a", version, "k", "v")
    for version in (0, -1, True, "1", 1.0, None, 2**31):
        ours, theirs = pair.both("get_skill_version", "a", version)
        assert ours.code == theirs.code == "INVALID_PARAMETER_VALUE"
    pair.delete_skill("a")
    pair.refused("get_latest_skill_version", "a")
    assert pair.create_skill_version("a").version == 1


@since_3_18
@pytest.mark.parametrize(
    "steps", [["draft", "active"], ["deprecated", "active"], ["deprecated", "deleted"], ["odd"]]
)
def test_status(pair: Pair, steps: list[str]) -> None:
    """K3 and K4: aliases go with a deletion by status; a change of nothing changes nobody."""
    pair.create_skill_version("a", created_by="me")
    pair.create_skill_version("a", status="draft")
    pair.set_skill_alias("a", "x", 1)
    pair.refused("delete_skill_version", "a", 1)
    pair.refused("update_skill_version", "a", 1, status=None)
    pair.refused("update_skill_version", "a", 1, status="active")
    pair.update_skill_version("a", 1, last_updated_by="other")
    for step in steps:
        ours, theirs = pair.both("update_skill_version", "a", 1, status=step, last_updated_by="you")
        assert (ours.code, str(ours.error)) == (theirs.code, str(theirs.error))
        pair.get_skill("a")
        pair.pages("search_skill_versions", "a")
    ours, theirs = pair.both("delete_skill_version", "a", 1, last_updated_by="they")
    assert (ours.code, str(ours.error)) == (theirs.code, str(theirs.error))
    pair.get_skill("a")
    pair.get_latest_skill_version("a")


@since_3_18
def test_aliases(pair: Pair) -> None:
    """K5: `latest` in any case; other aliases by their case."""
    pair.create_skill_version("a")
    pair.create_skill_version("a", status="draft")
    for alias, version in (("prod", 1), ("PROD", 2), ("prod", 2), ("a-b_c", 1)):
        pair.set_skill_alias("a", alias, version)
        pair.get_skill_version_by_alias("a", alias)
        pair.get_skill("a")
        pair.get_skill_version("a", version)
    for alias in ("latest", "LATEST"):
        assert pair.get_skill_version_by_alias("a", alias).version == 1
        pair.refused("get_skill_version_by_alias", "none", alias)
        pair.refused("delete_skill_alias", "a", alias)
        pair.refused("set_skill_alias", "a", alias, 1)
    for alias in ("v1", "a.b", "", None, "x" * 300):
        for call, more in (
            ("set_skill_alias", [1]),
            ("get_skill_version_by_alias", []),
            ("delete_skill_alias", []),
        ):
            ours, theirs = pair.both(call, "a", alias, *more)
            assert ours.code == theirs.code, (call, alias, ours, theirs)
    pair.refused("get_skill_version_by_alias", "a", "none")
    pair.refused("set_skill_alias", "none", "x", 1)
    pair.delete_skill_alias("a", "prod")
    pair.refused("delete_skill_alias", "a", "prod")
    pair.refused("delete_skill_alias", "none", "prod")


@since_3_18
def test_tags(pair: Pair) -> None:
    pair.create_skill_version("a")
    for call, of in (("skill_tag", ["a"]), ("skill_version_tag", ["a", 1])):
        for key, value in (("k", "v"), ("k", ""), ("a.b/c", "x"), ("long", "x" * 100_000)):
            getattr(pair, f"set_{call}")(*of, key, value)
        for key, value in (("", "v"), ("k", None), ("x" * 251, "v"), ("k", "x" * 100_001), ("a$", "v")):
            ours, theirs = pair.both(f"set_{call}", *of, key, value)
            assert ours.code == theirs.code, (key, ours, theirs)
        getattr(pair, f"delete_{call}")(*of, "k")
        pair.refused(f"delete_{call}", *of, "k")
        pair.refused(f"delete_{call}", "none", *of[1:], "k")
        pair.refused(f"set_{call}", "none", *of[1:], "k", "v")
    pair.get_skill("a")
    pair.get_skill_version("a", 1)


@since_3_18
def test_tags_of_a_deleted_version(pair: Pair) -> None:
    pair.create_skill_version("a", status="draft")
    pair.set_skill_version_tag("a", 1, "k", "v")
    pair.delete_skill_version("a", 1)
    pair.delete_skill_version_tag("a", 1, "k")
    pair.refused("delete_skill_version_tag", "a", 1, "k")


@since_3_18
def test_expectations(pair: Pair) -> None:
    """K7."""
    pair.refused("create_skill_version", "a", expected_parent_exists=True)
    assert pair.search_skills() == []
    pair.create_skill_version("a", expected_parent_exists=False)
    pair.refused("create_skill_version", "a", expected_parent_exists=False)
    assert pair.create_skill_version("a", expected_parent_exists=True).version == 2
    pair.bulk_register_skills(
        [definition("b"), definition("a")], expected_parent_exists={"a": True, "b": False}
    )
    pair.refused(
        "bulk_register_skills", [definition("c"), definition("a")], expected_parent_exists={"a": False}
    )
    pair.refused(
        "bulk_register_skills", [definition("c"), definition("d")], expected_parent_exists={"d": True}
    )
    assert len(pair.search_skills()) == 2


@since_3_18
def test_many_at_once(pair: Pair) -> None:
    """K6: a version that is known is used again, with its own status; the highest of several."""
    first = pair.bulk_register_skills([definition("b"), definition("a")], created_by="me")
    assert [each.name for each in first] == ["b", "a"]
    pair.update_skill_version("a", 1, status="deprecated")
    pair.bulk_register_skills([definition("a", status="draft"), definition("c", status="draft")], "")
    pair.create_skill_version(
        "a", source_type="git", source=REPOSITORY, ref="main", subpath="a", digest=DIGEST
    )
    assert pair.bulk_register_skills([definition("a")])[0].version == 2
    pair.bulk_register_skills([definition("a", digest="f" * 64)])
    pair.bulk_register_skills([definition("a", subpath="a/")])
    pair.bulk_register_skills([definition("a")], "org")
    pair.bulk_register_skills([definition(f"n{number}") for number in range(500)])
    pair.pages("search_skills", max_results=300)


@since_3_18
@pytest.mark.parametrize(
    "definitions",
    [
        [],
        None,
        "text",
        ["text"],
        [{}],
        [definition("A")],
        [definition("a"), definition("a")],
        [definition("a"), definition("b", ref="other")],
        [definition("a"), definition("b", source="other")],
        [definition("a"), definition("b", status="draft")],
        [definition("a", status="deprecated")],
        [definition("a", digest=None)],
        [definition("a", source="")],
        [definition("a", source_type="zip", ref=None)],
        [definition("a", subpath="./a")],
    ],
    ids=lambda given: str(given)[:60],
)
def test_bad_definitions(pair: Pair, definitions: Any) -> None:
    pair.refused("bulk_register_skills", definitions)


@since_3_18
def test_deletion_tells_of_artifacts(pair: Pair) -> None:
    token = "0123456789abcdef" * 2
    for name, organization in (("a", ""), ("a", "org")):
        prefix = f"mlflow-artifacts:/skills/{f'@{organization}/' if organization else ''}{name}"
        for source, subpath in (
            (f"{prefix}/{token}", None),
            (f"{prefix}/{token[::-1]}", "sub"),
            (f"{prefix}/short", None),
            (f"mlflow-artifacts:/skills/b/{token}", None),
        ):
            pair.create_skill_version(name, organization, "mlflow", source, None, subpath)
        pair.create_skill_version(name, organization, "git", f"{prefix}/{token}")
        assert len(pair.delete_skill_and_collect_artifacts(name, organization)) == 1


@pytest.fixture(scope="module")
def filled(module_pair: Pair) -> Pair:
    pair = module_pair
    pair.create_skill("none", description="No  versions")
    pair.create_skill("none", "org")
    for name, organization, kinds in (
        ("a", "", ["git", "oci", None]),
        ("b", "org", ["zip"]),
        ("c", "other", ["git"]),
    ):
        for kind in kinds:
            pair.create_skill_version(name, organization, kind, "x", digest=DIGEST if kind == "git" else None)
    pair.update_skill_version("a", 3, status="draft")
    pair.update_skill_version("b", 1, "org", status="deprecated")
    for name, organization, key, value in (("a", "", "k", "v"), ("a", "", "l", "w"), ("b", "org", "k", "V")):
        pair.set_skill_tag(name, key, value, organization)
    pair.set_skill_version_tag("a", 1, "k", "v")
    pair.update_skill("c", "other", description="words about c")
    return pair


FILTERS = [
    None,
    "",
    "name = 'a'",
    "name LIKE '%'",
    "name > 'a'",
    "organization = 'org'",
    "organization != ''",
    "description LIKE '%words%'",
    "description != 'x'",
    "search_text ILIKE '%NO VERSIONS%'",
    "status = 'active'",
    "status != 'active'",
    "status in ('active', 'draft')",
    "status NOT IN ('active')",
    "status = ('active')",
    "name IN ('a')",
    "source_type = 'git'",
    "source_type != 'git'",
    "digest LIKE '0%'",
    "version > 1",
    "version = 2.5",
    "version = '2'",
    "created_at > 0 and last_updated_at >= 5.5",
    "tags.k = 'v'",
    "tags.k ilike 'V' AND tags.l = 'w'",
    "tags.k > 'v'",
    "tags.k IS NULL",
    "params.k = 'v'",
    "icons = 'x'",
]


@since_3_18
@pytest.mark.parametrize("text", FILTERS)
def test_filters(filled: Pair, text: str | None) -> None:
    for call in (("search_skills",), ("search_skill_versions", "a", ""), ("search_skill_versions", "no", "")):
        ours, theirs = filled.both(*call, filter_string=text)
        assert ours.code == theirs.code, (ours, theirs)
        if theirs.error is None:
            filled.pages(*call, filter_string=text, max_results=2)


KEYS = [
    "name",
    "organization",
    "description",
    "search_text",
    "status",
    "source_type",
    "created_at",
    "last_updated_at",
]


@since_3_18
@pytest.mark.parametrize("way", ["", " DESC", " asc"])
@pytest.mark.parametrize("key", [*KEYS, "version", "digest", "icons", "name, status"])
def test_orders(filled: Pair, key: str, way: str) -> None:
    for call in (("search_skills",), ("search_skill_versions", "a", "")):
        for order in ([key + way], [key + way, "status DESC"], [key, key]):
            ours, theirs = filled.both(*call, order_by=order)
            assert ours.code == theirs.code, (order, ours, theirs)
            if theirs.error is None:
                filled.pages(*call, order_by=order, max_results=1)


@since_3_18
def test_who_may_see_what(filled: Pair) -> None:
    some = [("", "a"), ("org", "b"), ("org", "none"), ("no", "such")]
    for include in (None, [], some):
        for exclude in (None, [], some[:2]):
            filled.pages(
                "search_skills",
                max_results=1,
                include_skill_identities=include,
                exclude_skill_identities=exclude,
            )


@since_3_18
def test_tokens(filled: Pair) -> None:
    """K8: of one filter and one order; an empty one is none; who may see what does not count."""
    token = filled.search_skills(max_results=1).token
    filled.search_skills("", 1, [], token)
    (found,) = filled.ours.search_skills(None, 1, None, token, [("", "a"), ("org", "b")], [("", "none")])
    assert found.name == "b"
    for args in (("name != 'x'", 1, None, token), (None, 1, ["name"], token), (None, 1, None, "no token")):
        ours, theirs = filled.both("search_skills", *args)
        assert ours.code == theirs.code == "INVALID_PARAMETER_VALUE"
    ours, theirs = filled.both("search_skill_versions", "a", page_token=token)
    assert ours.code == theirs.code == "INVALID_PARAMETER_VALUE"
    for most in (0, 1001, True, "1", None):
        ours, theirs = filled.both("search_skills", max_results=most)
        assert ours.code == theirs.code == "INVALID_PARAMETER_VALUE"


@since_3_18
def test_statuses_are_mlflows(pair: Pair) -> None:
    pair.create_skill_version("a", status=SkillStatus.DRAFT)
    pair.update_skill_version("a", 1, status=SkillStatus.ACTIVE)
