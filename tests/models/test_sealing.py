"""Models without sums are sealed; signatures hold against one who can write to the database as well."""

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from genesis_flow import models
from genesis_flow.cli.main import cli
from genesis_flow.models import manifest
from genesis_flow.models.owners import TAG, LoggedModelOwner
from tests.models.conftest import Place, folder_of

Log = Callable[..., LoggedModel]

signs = pytest.mark.skipif(
    find_spec("model_signing") is None and not os.environ.get("CI"),
    reason="pip install genesis-flow[signing]",
)


def command(place: Place, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["models", *arguments, "--uri", place.uri])


@pytest.fixture
def unsealed(logged: Log, monkeypatch: pytest.MonkeyPatch) -> LoggedModel:
    """As those that were logged before there were manifests."""
    with monkeypatch.context() as patch:
        patch.setenv("GENESIS_FLOW_MODEL_MANIFESTS", "false")
        return logged()


def test_a_model_without_a_sum_is_refused_until_it_is_sealed(secure: Place, unsealed: LoggedModel) -> None:
    uri = f"models:/{unsealed.model_id}"
    with pytest.raises(MlflowException, match=f"genesis-flow models seal {uri}"):
        mlflow.pyfunc.load_model(uri)
    done = command(secure, "seal", uri)
    assert done.exit_code == 0, done.output
    assert f"{uri} is sealed" in done.output
    assert mlflow.pyfunc.load_model(uri).predict([[3.0]]).tolist() == pytest.approx([6.0])


def test_verify_names_what_differs_and_says_so_by_its_exit_code(place: Place, logged: Log) -> None:
    model = logged()
    uri = f"models:/{model.model_id}"
    done = command(place, "verify", uri, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said == {
        "model": uri,
        "files": said["files"],
        "manifest_sha256": model.tags[TAG],
        "signed_by": None,
    }
    (folder_of(model) / "requirements.txt").write_text("evil")
    done = command(place, "verify", uri)
    assert done.exit_code == 1
    assert "'requirements.txt' was changed" in done.output


def test_a_wanted_change_is_sealed_on_request_alone(secure: Place, logged: Log) -> None:
    model = logged()
    uri = f"models:/{model.model_id}"
    (folder_of(model) / "requirements.txt").write_text("scikit-learn")
    refused = command(secure, "seal", uri)
    assert (refused.exit_code, "'requirements.txt' was changed" in refused.output) == (1, True)
    done = command(secure, "seal", "--replace", uri)
    assert done.exit_code == 0, done.output
    assert models.verify(uri).manifest_sum == secure.client.get_logged_model(model.model_id).tags[TAG]


def test_versions_and_runs_without_a_logged_model_are_sealed_as_well(secure: Place) -> None:
    """As MLflow 2 left them: files among the artifacts of a run, and versions of those or of any files."""
    run_id = secure.client.create_run(secure.experiment_id).info.run_id
    secure.client.log_artifacts(run_id, str(secure.saved["skops"]), "old/model")
    of_run = f"runs:/{run_id}/old/model"
    source = f"{secure.client.get_run(run_id).info.artifact_uri}/old/model"
    name = f"old-{run_id}"
    secure.client.create_registered_model(name)
    with_run = secure.client.create_model_version(name, source, run_id).version
    without = secure.client.create_model_version(name, source).version
    uris = {of_run: of_run, f"models:/{name}/{with_run}": of_run, f"models:/{name}/{without}": None}
    for uri in uris:
        with pytest.raises(MlflowException, match="genesis-flow models seal"):
            mlflow.pyfunc.load_model(uri)
    for uri, owner in uris.items():
        if uri != f"models:/{name}/{with_run}":  # its files are those of the run
            models.seal(uri)
        assert mlflow.pyfunc.load_model(uri).predict([[3.0]]).tolist() == pytest.approx([6.0])
        assert models.verify(uri).name == (owner or uri)


def test_a_folder_cannot_be_sealed_in_the_name_of_a_model(place: Place, logged: Log) -> None:
    model = logged()
    (folder_of(model) / "requirements.txt").write_text("evil")
    with pytest.raises(MlflowException, match="name the model"):
        models.seal(str(folder_of(model)), replace_changed=True)
    assert place.client.get_logged_model(model.model_id).tags[TAG] == model.tags[TAG]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two pairs of keys, as `openssl ecparam -name prime256v1 -genkey` makes them."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for name in ("ours", "theirs"):
        key = ec.generate_private_key(ec.SECP256R1())
        password = BestAvailableEncryption(b"canary") if name == "theirs" else NoEncryption()
        made[name] = folder / f"{name}.pem"
        made[name].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password))
        made[f"{name}.pub"] = folder / f"{name}.pub"
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        made[f"{name}.pub"].write_bytes(public)
    return made


@signs
def test_a_signature_holds_against_one_who_writes_to_the_database(
    secure: Place, logged: Log, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = logged()
    uri = f"models:/{model.model_id}"
    monkeypatch.setenv("GENESIS_FLOW_MODEL_PUBLIC_KEYS", str(keys["ours.pub"]))
    with pytest.raises(MlflowException, match="is not signed"):
        mlflow.pyfunc.load_model(uri)
    done = command(secure, "seal", "--key", str(keys["ours"]), uri)
    assert done.exit_code == 0, done.output
    assert mlflow.pyfunc.load_model(uri).predict([[3.0]]).tolist() == pytest.approx([6.0])
    assert models.verify(uri).signed_by == keys["ours.pub"]

    (folder_of(model) / "requirements.txt").write_text("evil")
    LoggedModelOwner(secure.client, model.model_id).remember(manifest.write(folder_of(model)))
    with pytest.raises(MlflowException, match=r"signature of .* is not of one of the trusted keys"):
        mlflow.pyfunc.load_model(uri)


@signs
def test_another_key_is_not_trusted(place: Place, logged: Log, keys: dict[str, Path]) -> None:
    uri = f"models:/{logged().model_id}"
    models.seal(uri, private_key=keys["theirs"], password="canary")
    assert (
        models.verify(uri, public_keys=[keys["ours.pub"], keys["theirs.pub"]]).signed_by == keys["theirs.pub"]
    )
    done = command(place, "verify", uri, "--key", str(keys["ours.pub"]))
    assert done.exit_code == 1
    assert "not of one of the trusted keys" in done.output


@signs
def test_a_key_that_cannot_be_read_is_told_of_without_its_password(
    place: Place, logged: Log, keys: dict[str, Path]
) -> None:
    uri = f"models:/{logged().model_id}"
    for key, password in ((keys["theirs"], "wrong-canary"), (keys["theirs.pub"], None), (Path("none"), None)):
        with pytest.raises(MlflowException) as refused:
            models.seal(uri, private_key=key, password=password)
        assert key.name in str(refused.value.message)
        assert "canary" not in str(refused.value.message)


@signs
def test_the_project_that_the_signature_is_of_verifies_it(
    place: Place, logged: Log, keys: dict[str, Path], tmp_path: Path
) -> None:
    """Its own command takes the model as it is downloaded."""
    from model_signing._cli import main

    uri = f"models:/{logged().model_id}"
    models.seal(uri, private_key=keys["ours"])
    folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "got"))
    signature = Path(folder, manifest.SIGNATURE)
    arguments = [
        "verify",
        "key",
        folder,
        "--signature",
        str(signature),
        "--public_key",
        str(keys["ours.pub"]),
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    (Path(folder) / "requirements.txt").write_text("evil")
    assert CliRunner().invoke(main, arguments).exit_code != 0
