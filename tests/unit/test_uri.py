"""Store URIs: what is accepted, what each refusal says, and that no refusal repeats a password."""

from __future__ import annotations

import os
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from genesis_flow.core.uri import GenesisUri, MongoUri, normalize_prefix, parse

# The word stands nowhere else, so finding it means that a piece of the password is shown.
CANARY = "Zq7x"
ODD_TEXT = st.text(alphabet=string.printable, max_size=15)
PASSWORDS = st.builds(lambda before, after: before + CANARY + after, ODD_TEXT, ODD_TEXT)


def mongo(uri: str) -> MongoUri:
    parsed = parse(uri, "argument")
    assert isinstance(parsed, MongoUri)
    return parsed


def genesis(uri: str) -> GenesisUri:
    parsed = parse(uri, "argument")
    assert isinstance(parsed, GenesisUri)
    return parsed


def refusal(uri: str) -> str:
    with pytest.raises(MlflowException) as caught:
        parse(uri, "argument")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    return caught.value.message


def test_server_uri_in_parts() -> None:
    parsed = mongo("mongodb://us%40er:p%40ss%2F%25@h1:1,h2/mlflow?ssl=true&replicaSet=globaldb#team")
    assert (parsed.scheme, parsed.hosts, parsed.database) == ("mongodb", "h1:1,h2", "mlflow")
    assert parsed.username == "us@er"
    assert parsed.password is not None
    assert parsed.password.reveal() == "p@ss/%"
    assert parsed.prefix == "team_"
    assert parsed.option("REPLICASET") == "globaldb"
    assert parsed.option("w") is None


@pytest.mark.parametrize(
    ("uri", "hosts"),
    [
        ("mongodb://[::1]:27017/db", "[::1]:27017"),
        ("mongodb://%2Ftmp%2Fdir%20x%2Fm.sock/db", "%2Ftmp%2Fdir%20x%2Fm.sock"),
        ("mongodb+srv://c.example.net/db", "c.example.net"),
        ("MongoDB://HOST/db", "HOST"),
    ],
)
def test_hosts(uri: str, hosts: str) -> None:
    assert mongo(uri).hosts == hosts


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("mongodb://localhost:27017", "names no database"),
        ("mongodb://u:canary@localhost/?w=1", "mongodb://u:***@localhost/?w=1"),
        ("mongodb://localhost/admin", "authSource=admin"),
        ("mongodb://localhost/my%20db", "names the database 'my db'"),
        ("mongodb://localhost/a.b", "names the database 'a.b'"),
        ("mongodb://h/db?maxPoolSize=many", "option maxPoolSize"),
        ("mongodb://h/db?maxPoolSise=4", "option maxPoolSise: Unknown option"),
        ("mongodb://h/db?ssl", "option 1 after '?' must be written name=value"),
        ("mongodb://h/db?tls=true&ssl=false", "conflicting values"),
        ("mongodb://h1,h2/db?directConnection=true", "needs a single host"),
        ("mongodb://h/db?ssl_cert_reqs=maybe", "CERT_NONE"),
        ("mongodb://h:99999/db", "Port must be"),
        ("mongodb:///db", "must name its hosts"),
        ("mongodb://h,/db", "must name its hosts"),
        ("mongodb+srv://a.example.net,b.example.net/db", "one host name without a port"),
        ("mongodb+srv://a.example.net:27017/db", "one host name without a port"),
        ("mongodb://:pw@h/db", "empty user name"),
        ("mongodb://u:canary:x@h/db", "percent-encoded"),
        ("mongodb://u:100%-canary@h/db", "percent-encoded"),
        ("mongodb://u:canary/db", "must name its hosts"),
        ("mongodb://h/db#bad prefix", "'bad prefix'"),
        ("mysql://u:canary@h/db", "must begin with mongodb://"),
        ("localhost:27017/db", "must begin with mongodb://"),
        ("genesis://relative/dir", "as in genesis:///relative/dir, or genesis:///"),
        ("genesis://./foo", f"as in {Path.cwd().as_uri().replace('file', 'genesis')}/foo;"),
        ("genesis://~/foo", f"as in {Path.home().as_uri().replace('file', 'genesis')}/foo;"),
        ("genesis:/data/x", "'genesis:/data/x' (argument) needs three slashes"),
        ("genesis:///dir?w=1", "takes no options"),
        ("genesis:///dir%00", "null byte"),
    ],
)
def test_refusals_say_what_to_do(uri: str, says: str) -> None:
    message = refusal(uri)
    assert says in message
    assert "canary" not in message
    assert "argument" in message


@pytest.mark.parametrize(
    "option",
    [
        "authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKENcanary",
        "authMechanismProperties=canary",
        "authMechanismProperties=canary:canary",
    ],
)
def test_secret_options_stay_out_of_the_whole_traceback(option: str) -> None:
    with pytest.raises(MlflowException) as caught:
        parse(f"mongodb://h/db?{option}", "argument")
    # A chained exception would be printed with its message, which repeats the option.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "canary" not in caught.value.message


TEMPLATES = (
    "mongodb://user:{}@h/db",
    "mongodb://user:{}@h1,h2:77/db?w=1&ssl=true#team",
    "mongodb+srv://user:{}@c.example.net/db",
    "mongodb://user:{}@h",
    "mongodb://user:{}@h/db?nonsense=1",
    "mongodb://user:{}@h:port/db",
    "mongodb://{}@h/db?=",
)


@given(PASSWORDS, st.sampled_from(TEMPLATES))
@example("p@ssZq7x:/%?#[]", TEMPLATES[0])
@example("%70%61%73%Zq7x%", TEMPLATES[1])
@example("a/b?c=d@Zq7x/f#g", TEMPLATES[4])
@example("abc?maxPoolSize=Zq7x", TEMPLATES[0])
def test_no_error_repeats_an_unescaped_password(password: str, template: str) -> None:
    if template == TEMPLATES[-1]:
        password = f"user:{password}"
    try:
        parsed = parse(template.format(password), "argument")
    except MlflowException as exc:
        shown = "".join(_messages(exc))
    else:
        shown = repr(parsed)
    assert CANARY not in shown


def _messages(exc: BaseException | None) -> list[str]:
    """What a log would print of an error and everything chained to it."""
    if exc is None:
        return []
    return [str(exc), repr(exc), *_messages(exc.__cause__), *_messages(exc.__context__)]


@given(st.text(min_size=1).filter(lambda text: text.encode("utf-8", "replace").decode() == text))
def test_quoted_credentials_arrive_whole(text: str) -> None:
    parsed = mongo(f"mongodb://{quote(text, safe='')}:{quote(text, safe='')}@h/db")
    assert parsed.username == text
    assert parsed.password is not None
    assert parsed.password.reveal() == text


def test_dropped_option_is_translated() -> None:
    assert (
        mongo("mongodb://h/db?ssl=true&ssl_cert_reqs=CERT_NONE").option("tlsAllowInvalidCertificates")
        == "true"
    )


def test_render_keeps_what_the_driver_needs() -> None:
    parsed = mongo("mongodb://u:p@h/my-db?appName=a%26b&authMechanismProperties=SERVICE_NAME:x%2Fy&w=1#team")
    assert (
        parsed.render(with_database=True, left_out={"w"})
        == "mongodb://h/my-db?appName=a%26b&authMechanismProperties=SERVICE_NAME:x%2Fy"
    )
    assert (
        parsed.render(with_database=False, left_out={"w", "appname", "authmechanismproperties"})
        == "mongodb://h/"
    )


@pytest.mark.parametrize(
    ("host", "cosmos"),
    [
        ("a.mongo.cosmos.azure.com:10255", True),
        ("A.MongoCluster.Cosmos.Azure.com", True),
        ("cosmos.azure.com.example.org", False),
        ("localhost", False),
    ],
)
def test_cosmos_hosts(host: str, cosmos: bool) -> None:
    assert mongo(f"mongodb://{host}/db").is_cosmos is cosmos


@pytest.mark.parametrize(
    ("uri", "directory", "prefix"),
    [
        ("genesis:///data/x", "/data/x", None),
        ("genesis:///data/a%20b%23c%3Fd%25", "/data/a b#c?d%", None),
        ("genesis:///data/a b", "/data/a b", None),
        ("genesis:///data/é/日本", "/data/é/日本", None),
        ("genesis:///data/%C3%A9", "/data/é", None),
        ("genesis:///data/x/../y/", "/data/y", None),
        ("genesis:///data#team", "/data", "team_"),
        ("genesis:///data#", "/data", ""),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_genesis_directory(uri: str, directory: str, prefix: str | None) -> None:
    assert genesis(uri) == GenesisUri(Path(directory), prefix)


def test_genesis_default_is_resolved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parsed = genesis("genesis://#team")
    monkeypatch.chdir("/")
    assert parsed == GenesisUri(tmp_path / "genesis-data", "team_")


@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
@given(st.binary(min_size=1, max_size=20).filter(lambda raw: b"\0" not in raw and b"/" not in raw))
def test_any_file_name_can_be_written(raw: bytes) -> None:
    name = b"x" + raw
    assert os.fsencode(genesis(f"genesis:///data/{quote(name)}").directory) == b"/data/" + name


@pytest.mark.parametrize(
    ("given", "expected"), [("", ""), ("team", "team_"), ("team_", "team_"), ("a.b-c", "a.b-c_")]
)
def test_prefix(given: str, expected: str) -> None:
    assert normalize_prefix(given, "argument") == expected


@pytest.mark.parametrize("prefix", ["a b", "$x", ".x", "-x", "a..b", "é", "system.x", "x" * 65, "a\n"])
def test_bad_prefix(prefix: str) -> None:
    with pytest.raises(MlflowException, match=r"collection prefix .*environment"):
        normalize_prefix(prefix, "environment MONGODB_COLLECTION_PREFIX")
