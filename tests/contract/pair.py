"""Plays every call into two stores and compares what comes back.

The oracle is told the random choices of the store under test (run ids, generated run names) and both
have the same artifact root, so everything else can be compared as it is, orders by run id included.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from mlflow.entities import EvaluationDataset, LoggedModel, Run
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.jobs import sqlalchemy_store as jobs_store
from mlflow.store.tracking import sqlalchemy_store
from mlflow.store.tracking.gateway import sqlalchemy_mixin as gateway_mixin
from mlflow.store.tracking.mcp_server_registry import sqlalchemy_mixin as mcp_mixin

from tests.contract.policy import code_of, error_differences, result_differences
from tests.versions import SINCE_3_18

ORACLE_MODULE, MCP_MODULE = sqlalchemy_store.__name__, mcp_mixin.__name__
GATEWAY_MODULE = gateway_mixin.__name__
JOBS_MODULE = jobs_store.__name__

# Entities whose id is random behind a prefix, and the field that has it.
DRAWN_IDS = {
    "LabelSchema": "schema_id",
    "ReviewQueue": "queue_id",
    "Issue": "issue_id",
    "ScorerVersion": "scorer_id",
    "MCPAccessEndpoint": "id",
    "GatewaySecretInfo": "secret_id",
    "GatewayModelDefinition": "model_definition_id",
    "GatewayEndpoint": "endpoint_id",
    "GatewayBudgetPolicy": "budget_policy_id",
    "GatewayGuardrail": "guardrail_id",
    "Job": "job_id",
}


class Outcome(NamedTuple):
    """What a call came to: a result or an error."""

    result: Any
    error: Exception | None

    @property
    def code(self) -> str | None:
        """The name of the error's code; None for a result."""
        return None if self.error is None else code_of(self.error) or type(self.error).__name__


class Mismatch(AssertionError):
    """The two stores answered differently."""


class Pair:
    """Used like a store: each method is played into both, and the answer of the one under test returned.

    Works with any object that has MLflow's blocking methods.
    """

    def __init__(self, ours: Any, oracle: Any) -> None:
        self.ours = ours
        self.oracle = oracle
        self._their_tokens: dict[str, str] = {}

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            ours, theirs = self.both(method, *args, **kwargs)
            self._compare(method, args, kwargs, ours, theirs)
            if ours.error is not None:
                raise ours.error
            return ours.result

        return call

    def refused(self, method: str, *args: Any, **kwargs: Any) -> MlflowException:
        """The error with which both stores refuse the call."""
        ours, theirs = self.both(method, *args, **kwargs)
        self._compare(method, args, kwargs, ours, theirs)
        assert isinstance(ours.error, MlflowException), f"{method}{args} was not refused: {ours}"
        return ours.error

    def both(self, method: str, *args: Any, **kwargs: Any) -> tuple[Outcome, Outcome]:
        """Play without comparing."""
        ours = _outcome(getattr(self.ours, method), args, kwargs)
        # The same arguments, with the oracle's own token where one continues a search.
        their_args = [self._their(value) for value in args]
        their_kwargs = {name: self._their(value) for name, value in kwargs.items()}
        with _told(ours.result):
            theirs = _outcome(getattr(self.oracle, method), their_args, their_kwargs)
        self._remember_tokens(ours.result, theirs.result)
        return ours, theirs

    def pages(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        """All pages of a search, each compared, concatenated."""
        found: list[Any] = []
        token = None
        while True:
            page = getattr(self, method)(*args, **kwargs, page_token=token)
            entries, token = page if isinstance(page, tuple) else (page, page.token)
            found += entries
            if not token:
                return found

    def _without_needless_token(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], ours: Outcome, theirs: Outcome
    ) -> Outcome:
        """Their page, without a token that leads to nothing: they give one for every page that is full."""
        needless = method == "search_traces" and not SINCE_3_18 and theirs.error is None
        if needless and _token(theirs.result) and not _token(ours.result):
            entries, token = theirs.result
            assert self.oracle.search_traces(*args, **{**kwargs, "page_token": token}) == ([], None)
            return Outcome((entries, None), None)
        return theirs

    def _compare(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], ours: Outcome, theirs: Outcome
    ) -> None:
        theirs = self._without_needless_token(method, args, kwargs, ours, theirs)
        if ours.error is not None and theirs.error is not None:
            found = error_differences(ours.error, theirs.error)
        elif ours.error is not None or theirs.error is not None:
            found = [f"ours came to {ours!r}, theirs to {theirs!r}"]
        else:
            found = result_differences(method, _comparable(ours.result), _comparable(theirs.result))
        if found:
            call = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
            raise Mismatch("\n  ".join([f"{method}({call})", *found])) from ours.error or theirs.error

    def _their(self, value: Any) -> Any:
        return self._their_tokens.get(value, value) if isinstance(value, str) else value

    def _remember_tokens(self, ours: Any, theirs: Any) -> None:
        mine, other = _token(ours), _token(theirs)
        if mine and other:
            self._their_tokens[mine] = other


def _outcome(method: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Outcome:
    try:
        return Outcome(method(*args, **kwargs), None)
    except Exception as error:
        return Outcome(None, error)


def _comparable(result: Any) -> Any:
    """A page that comes as a tuple, as the paged list that it means."""
    if _is_page(result):
        return PagedList(result[0], result[1])
    return result


def _is_page(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], list)


def _token(result: Any) -> str | None:
    if _is_page(result):
        token: str | None = result[1]
        return token
    return getattr(result, "token", None)


@contextmanager
def _told(result: Any) -> Iterator[None]:
    """Let the oracle draw what the store under test drew for something new."""
    drawn = _drawn(result)
    if drawn is None:
        yield
        return
    random_id, name = drawn
    with (
        mock.patch(f"{ORACLE_MODULE}.uuid", SimpleNamespace(uuid4=lambda: _Drawn(random_id))),
        mock.patch(f"{MCP_MODULE}.uuid", SimpleNamespace(uuid4=lambda: _Drawn(random_id))),
        mock.patch(f"{JOBS_MODULE}.uuid", SimpleNamespace(uuid4=lambda: _Drawn(random_id))),
        mock.patch(f"{ORACLE_MODULE}._generate_random_name", return_value=name),
        # An endpoint's id is the first that it draws; then come those of its models.
        mock.patch(f"{GATEWAY_MODULE}.uuid", SimpleNamespace(uuid4=_first(_Drawn(random_id)))),
    ):
        yield


def _first(drawn: Any) -> Callable[[], Any]:
    told = iter([drawn])
    return lambda: next(told, None) or uuid.uuid4()


class _Drawn(str):
    """A random id as MLflow's store uses one: as a text, or by its hexadecimal digits."""

    @property
    def hex(self) -> str:
        return str(self)


def _drawn(result: Any) -> tuple[str, str | None] | None:
    """The random id and name in what a call returned."""
    match result:
        case Run():
            return result.info.run_id, result.info.run_name
        case LoggedModel():
            return result.model_id.removeprefix("m-"), result.name
        case EvaluationDataset():
            return result.dataset_id.removeprefix("d-"), None
    if (field := DRAWN_IDS.get(type(result).__name__)) is not None:
        # The prefix says what kind of thing the id is of: `ls-`, `rq-`. A UUID with dashes has none.
        drawn: str = getattr(result, field)
        return (drawn if drawn.count("-") > 1 else drawn.partition("-")[2]), None
    return None
