"""What ``genesis-flow server`` tells MLflow's login: where users are, by a file that only this user reads."""

import configparser
import dataclasses
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import click
import mlflow

from genesis_flow.cli.quickstart import INSTALL_SERVER
from genesis_flow.cli.server_plan import Plan
from genesis_flow.core.settings import Settings

CONFIG_VARIABLE = "MLFLOW_AUTH_CONFIG_PATH"
SECRET_VARIABLE = "MLFLOW_FLASK_SERVER_SECRET_KEY"
SECTION, DATABASE = "mlflow", "database_uri"


@contextmanager
def login_told(plan: Plan, settings: Settings) -> Iterator[Plan]:
    """The plan, with what the login needs in its environment, as long as the server runs."""
    if not plan.login:
        yield plan
        return
    if find_spec("flask_wtf") is None:
        raise click.ClickException(f"The login needs Flask-WTF: {INSTALL_SERVER}")
    environment = dict(plan.environment)
    # Only the page for new users needs it, and only several servers behind one address need the same.
    environment[SECRET_VARIABLE] = environment.get(SECRET_VARIABLE) or secrets.token_hex(32)
    config = read_config(environment)
    with tempfile.TemporaryDirectory(prefix="genesis-flow-login-") as folder:
        if not config.has_option(SECTION, DATABASE):
            # Without user and password, which the processes of the server find as they do for experiments.
            uri = settings.credential_free_uri.reveal()
            config.set(SECTION, DATABASE, uri.replace("%", "%%"))
            environment[CONFIG_VARIABLE] = str(_written(config, Path(folder, "basic_auth.ini")))
        yield dataclasses.replace(plan, environment=environment)


def read_config(environ: Mapping[str, str]) -> configparser.RawConfigParser:
    """The configuration of the login: the user's, or MLflow's own without its database.

    MLflow replaces ``%(name)s`` in it, so that a percent sign of a URI is one sign too few.
    """
    given = environ.get(CONFIG_VARIABLE)
    path = Path(given) if given else Path(str(mlflow.__file__)).parent / "server" / "auth" / "basic_auth.ini"
    config = configparser.RawConfigParser()
    try:
        with path.open(encoding="utf-8") as file:
            config.read_file(file)
        if not config.has_section(SECTION):
            raise click.ClickException(
                f"{path} has no section [{SECTION}]: MLflow's documentation of its login shows one."
            )
        read = configparser.ConfigParser()
        read.read_dict({SECTION: dict(config.items(SECTION))})
        for name in read.options(SECTION):
            read.get(SECTION, name)
    except OSError as error:
        raise click.ClickException(
            f"{path} of {CONFIG_VARIABLE} cannot be read ({error.strerror}): correct the path, or unset it."
        ) from error
    except (configparser.Error, ValueError) as error:
        raise click.ClickException(_wrong(path, error)) from None  # the cause shows values, a password maybe
    if not given:
        config.remove_option(SECTION, DATABASE)
    return config


def _wrong(path: Path, error: Exception) -> str:
    if isinstance(
        error,
        configparser.ParsingError | configparser.DuplicateOptionError | configparser.DuplicateSectionError,
    ):
        return f"{path} is not what MLflow's configuration of the login looks like: compare it with MLflow's."
    return (
        f"A value in {path} has a percent sign, which MLflow reads as the begin of a reference: write %% for "
        f"each. A {DATABASE} needs no user and password: {', '.join(_CREDENTIALS)} bring them."
    )


_CREDENTIALS = ("GENESIS_FLOW_MONGODB_USERNAME", "GENESIS_FLOW_MONGODB_PASSWORD")


def _written(config: configparser.RawConfigParser, path: Path) -> Path:
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8") as file:
        config.write(file)
    return path
