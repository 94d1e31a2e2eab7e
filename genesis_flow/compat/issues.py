"""Issues: fields, rules and arguments that MLflow has since 3.18."""

import dataclasses
from typing import Any

from mlflow.entities.issue import Issue
from mlflow.store.entities.paged_list import PagedList

from genesis_flow.compat.version import RELEASE
from genesis_flow.core.errors import invalid

# A source run belongs to the experiment of its issue. Before, any run would do.
SOURCE_RUNS_OF_THE_EXPERIMENT = RELEASE >= (3, 18)

_SINCE_3_18 = RELEASE >= (3, 18)
_FIELDS = {field.name for field in dataclasses.fields(Issue)}


def check_fields(**fields: Any) -> None:
    """MLflow's own rules for the fields of an issue, if it has any."""
    if _SINCE_3_18:
        from mlflow.utils.issue_utils import validate_issue_fields  # since MLflow 3.18

        validate_issue_fields(**fields)


def check_search(
    name: Any, statuses: Any, severities: Any, categories: Any, order_by: Any, view: Any
) -> None:
    """MLflow's own rules for a search of issues, if it has any."""
    if not _SINCE_3_18:
        return
    from mlflow.utils.issue_utils import validate_issue_search  # since MLflow 3.18

    validate_issue_search(name, statuses, severities, order_by)
    check_fields(categories=categories)
    for status in statuses or []:
        check_fields(status=status)
    for severity in severities or []:
        check_fields(severity=severity)
    if view not in (None, "basic", "full"):
        raise invalid(f"view must be basic or full, not {view!r:.100}.")


def refuse_newer(**arguments: Any) -> None:
    """Refuse arguments that the installed MLflow does not know, and has no rules for."""
    given = [name for name, value in arguments.items() if value not in (None, False)]
    if given and not _SINCE_3_18:
        raise invalid(f"{', '.join(given)} needs MLflow 3.18 or newer. Leave it out, or update MLflow.")


def issue(**fields: Any) -> Issue:
    """The entity, with as many of the fields as it has."""
    return Issue(**{name: value for name, value in fields.items() if name in _FIELDS})


def issue_page(issues: list[Issue], token: str | None, total: int | None) -> "PagedList[Issue]":
    """A page, with the number of all that were found if it can tell it."""
    page = PagedList(issues, token)
    if _SINCE_3_18:
        page.total_count = total
    return page
