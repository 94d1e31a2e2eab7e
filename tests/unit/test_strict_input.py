"""Strict input: each rule of docs/strict-input.md, and that no public method is without it."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import (
    Dataset,
    DatasetInput,
    ExperimentTag,
    GatewayEndpointTag,
    InputTag,
    LoggedModelParameter,
    LoggedModelTag,
    Metric,
    Param,
    RunTag,
    Workspace,
)
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException

from genesis_flow.core import options
from genesis_flow.core.settings import Settings
from genesis_flow.core.strict import Kind, StrictInput
from genesis_flow.mongo.arguments import parameters, text_parameters
from genesis_flow.mongo.strict import KINDS, kind_of
from genesis_flow.stores.areas import AREAS

URI = "mongodb://h/mlflow"
PAGE = Path(__file__).parents[2] / "docs" / "strict-input.md"
STRICT = StrictInput(
    max_name_length=20, max_tag_value_length=30, max_text_length=40, artifact_schemes=("file", "s3")
)
OFF = Settings.resolve(URI, environ={})
ON = dataclasses.replace(OFF, strict_input=STRICT)

METHODS = {
    f"{area.name}.{name}": member
    for area in AREAS
    for part in (*area.tracking, *area.registry)
    for name, member in vars(part).items()
    if hasattr(member, "changes_data")
}


def refusal(kind: Kind, text: str) -> str:
    with pytest.raises(MlflowException) as caught:
        STRICT.check(kind, "it", text)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert caught.value.message.endswith(", or set MLFLOW_STRICT_INPUT_VALIDATION=false.")
    return caught.value.message


class TestControlCharacters:
    @pytest.mark.parametrize("kind", Kind)
    @pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x9b"])
    def test_no_text_has_any(self, kind: Kind, character: str) -> None:
        assert f"U+{ord(character):04X} at position 1, which is a control character" in refusal(
            kind, f"a{character}b"
        )

    @pytest.mark.parametrize("kind", [Kind.NAME, Kind.PLACE, Kind.LOCATION])
    @pytest.mark.parametrize("character", ["\n", "\r", "\t", "\u2028"])
    def test_a_name_is_one_line(self, kind: Kind, character: str) -> None:
        assert "at position 1" in refusal(kind, f"a{character}b")

    @pytest.mark.parametrize("character", ["\u202e", "\u2066"])
    def test_a_name_reads_as_it_is(self, character: str) -> None:
        assert "turns the order of what is shown: remove it" in refusal(Kind.NAME, f"a{character}b")

    @pytest.mark.parametrize("kind", [Kind.TEXT, Kind.TAG, Kind.BODY])
    def test_words_may_have_lines_and_any_script(self, kind: Kind) -> None:
        STRICT.check(kind, "it", "a\tb\r\nc \u202bשלום\u202c 🌍")


class TestTraversal:
    @pytest.mark.parametrize("kind", [Kind.NAME, Kind.PLACE, Kind.LOCATION])
    @pytest.mark.parametrize(
        "text",
        ["..", "../a", "a/../b", "a\\..\\b", "%2e%2e/a", "a/%252E%252e%2fb", "a%5c..", "%2525252525252e"],
    )
    def test_no_way_leads_out(self, kind: Kind, text: str) -> None:
        assert "leads out of its folder" in refusal(kind, text)

    @pytest.mark.parametrize("text", ["s3://b?p=../a", "s3://b#../a", "s3://b/a?x=1&y=.."])
    def test_nor_behind_the_path_of_a_uri(self, text: str) -> None:
        assert "leads out of its folder" in refusal(Kind.LOCATION, text)

    @pytest.mark.parametrize("text", ["a..b", "1...", "v1..v2", "/Users/me", "100 %", "a/./b", "50%25"])
    def test_dots_and_percents_are_no_way_out(self, text: str) -> None:
        STRICT.check(Kind.NAME, "it", text)


class TestLengths:
    @pytest.mark.parametrize(
        ("kind", "limit", "key"),
        [
            (Kind.NAME, 20, "max_name_length"),
            (Kind.TAG, 30, "max_tag_value_length"),
            (Kind.TEXT, 40, "max_text_length"),
        ],
    )
    def test_as_configured(self, kind: Kind, limit: int, key: str) -> None:
        STRICT.check(kind, "it", "a" * limit)
        message = refusal(kind, "a" * (limit + 1))
        assert f"it has {limit + 1} characters, and {limit} are allowed" in message
        assert f"raise [security] {key} in mlflow.conf" in message

    def test_documents_have_none(self) -> None:
        STRICT.check(Kind.BODY, "it", "a" * 10_000)

    def test_tags_of_mlflow_keep_its_limits(self) -> None:
        STRICT.check_tag("the tag", "mlflow.note", "a" * 31)
        with pytest.raises(MlflowException, match="the tag 'note' has 31 characters"):
            STRICT.check_tag("the tag", "note", "a" * 31)


class TestSchemes:
    @pytest.mark.parametrize("text", ["s3://b/a", "S3://b/a", "/a", "a/b", "file:///a", "C:\\a"])
    def test_allowed(self, text: str) -> None:
        STRICT.check(Kind.LOCATION, "it", text)

    @pytest.mark.parametrize("text", ["runs:/a/m", "models:/m-1"])
    def test_what_names_a_run_or_a_model_is_no_place(self, text: str) -> None:
        STRICT.check(Kind.LOCATION, "it", text)

    @pytest.mark.parametrize("text", ["ftp://h/a", "http://h/a", "javascript:alert(1)", "gs://b"])
    def test_refused(self, text: str) -> None:
        message = refusal(Kind.LOCATION, text)
        assert (
            f"has the scheme {text.partition(':')[0]!r}, and allowed are file, s3: use one of them" in message
        )
        assert "[security] allowed_artifact_schemes in mlflow.conf" in message

    def test_links_may_have_any(self) -> None:
        STRICT.check(Kind.PLACE, "it", "https://h/a")


class TestSwitch:
    def resolve(self, text: str = "", **environ: str) -> Settings:
        Path("mlflow.conf").write_text(text, encoding="utf-8")
        return Settings.resolve(URI, environ=environ)

    @pytest.fixture(autouse=True)
    def _empty_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_off_unless_the_environment_or_the_file_says_otherwise(self) -> None:
        assert self.resolve().strict_input is None
        file = "[security]\nenable_input_validation = true\n"
        assert self.resolve(file).strict_input == StrictInput(256, 5000, 100_000, options.SAFE_SCHEMES)
        assert self.resolve(file, MLFLOW_STRICT_INPUT_VALIDATION="false").strict_input is None
        settings = self.resolve(MLFLOW_STRICT_INPUT_VALIDATION="1")
        assert settings.strict_input is not None
        assert settings.sources["enable_input_validation"] == "environment MLFLOW_STRICT_INPUT_VALIDATION"

    def test_limits_and_schemes_are_those_of_the_file(self) -> None:
        file = (
            "[security]\nenable_input_validation = on\nmax_name_length = 1\nmax_tag_value_length = 2\n"
            "max_text_length = 3\nallowed_artifact_schemes = S3, file\n"
        )
        assert self.resolve(file).strict_input == StrictInput(1, 2, 3, ("s3", "file"))

    @pytest.mark.parametrize("key", ["max_name_length", "max_tag_value_length", "max_text_length"])
    def test_a_bad_limit_is_met_before_the_switch_is_turned(self, key: str) -> None:
        with pytest.raises(MlflowException, match=rf"\[security\] {key} must be a whole number above 0"):
            self.resolve(f"[security]\n{key} = 0\n")


def test_every_text_argument_of_every_method_is_looked_at() -> None:
    bad, tried = "a\x07b", 0
    for method_name, method in METHODS.items():
        places = {parameter.name: place for place, parameter in enumerate(parameters(method))}
        for name, parameter in text_parameters(method).items():
            method.check(OFF, (), {name: bad})
            method.check(ON, (), {name: "a"})
            forms = [((), {name: bad}), ((*[None] * places[name], bad), {})]
            if parameter.takes_several:
                forms.append(((), {name: ["a", bad]}))
            for args, kwargs in forms:
                message = told(method, args, kwargs)
                assert "which is a control character" in message, f"{method_name} takes {name}"
                assert bad not in message
                tried += 1
    assert tried > 500


def told(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    try:
        method.check(ON, args, kwargs)
    except MlflowException as error:
        return str(error.message)
    return ""


TAGS = (
    *(ExperimentTag, GatewayEndpointTag, InputTag, LoggedModelTag, ModelVersionTag),
    *(RegisteredModelTag, RunTag),
)


def bad_entities() -> Iterator[Any]:
    bad = "a\x07b"
    for tag in (*TAGS, Param, LoggedModelParameter):
        yield from (tag(bad, "a"), tag("a", bad))
    yield from (tag("a", "a" * 31) for tag in TAGS)
    yield Metric(bad, 1.0, 1, 1)
    yield Metric("a", 1.0, 1, 1, dataset_name="../a", dataset_digest="a")
    yield Workspace(name="a", default_artifact_root="ftp://h/a")
    dataset = Dataset("../a", "a", "a", "{}")
    yield DatasetInput(dataset, [])
    yield DatasetInput(Dataset("a", "a", "a", "{}"), [InputTag("a", bad)])
    yield {"tags": {"a": bad}}
    yield {"tags": {bad: "a"}}
    yield {"tags": {"a": "a" * 31}}
    yield {"metadata": {"a": bad}}
    yield {"skill_definitions": [{"name": "a", "source": "https://h/../a"}]}


@pytest.mark.parametrize("entity", [*bad_entities()])
def test_texts_of_entities_and_maps_are_looked_at(entity: Any) -> None:
    method = METHODS["runs.log_inputs"]  # any: which names it has makes no difference
    given = entity if isinstance(entity, dict) else {"things": [entity]}
    method.check(OFF, (), given)
    with pytest.raises(MlflowException, match="MLFLOW_STRICT_INPUT_VALIDATION"):
        method.check(ON, (), given)


def test_a_tag_that_is_given_as_key_and_value_is_one() -> None:
    method = METHODS["prompts.set_prompt_tag"]
    method.check(ON, ("a", "mlflow.prompt.text", "a" * 31), {})
    with pytest.raises(MlflowException, match="the tag 'note' has 31 characters"):
        method.check(ON, ("a", "note", "a" * 31), {})


def test_a_secret_is_not_repeated() -> None:
    method = METHODS["users.create_user"]
    with pytest.raises(MlflowException) as caught:
        method.check(ON, (), {"username": "ann", "password": "c4nary\x07"})
    assert "c4nary" not in caught.value.message
    method.check(ON, (), {"username": "ann", "password": "../a" * 50})


# Names of arguments that sound as if they were no names, and are.
NAMES_ALL_THE_SAME = {
    *("source_ids", "source_run_id", "source_type", "secret_id", "secret_name", "location", "locations"),
    *("linkage_type", "target_value"),
}
_SOUNDS_OTHERWISE = re.compile(
    r"comment|descri|error|filter|instruc|link|location|message|password|path$|prompt|rationale|reason|root"
    r"|secret|source|template|text|token|ur[il]|value"
)


def test_every_argument_that_sounds_like_no_name_is_of_a_kind() -> None:
    named = {name for method in METHODS.values() for name in text_parameters(method)}
    assert named >= NAMES_ALL_THE_SAME
    unknown = {
        name
        for name in named - KINDS.keys() - NAMES_ALL_THE_SAME
        if _SOUNDS_OTHERWISE.search(name.replace("resource", ""))
    }
    assert not unknown, "say in genesis_flow/mongo/strict.py of which kind they are"
    assert kind_of("create_model_version", "source") is Kind.LOCATION
    assert kind_of("create_skill_version", "source") is Kind.PLACE
    assert kind_of("create_experiment", "name") is Kind.NAME


def test_the_page_has_each_rule_and_its_setting() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for option in options.OPTIONS:
        if option.says.startswith("strict input"):
            assert f"`{option.name}`" in text
    assert [name for name, each in globals().items() if isinstance(each, type) and f"`{name}`" in text] == [
        *("TestControlCharacters", "TestTraversal", "TestLengths", "TestSchemes", "TestSwitch")
    ]
    assert "MLFLOW_STRICT_INPUT_VALIDATION" in text
