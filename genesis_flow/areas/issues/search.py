"""Searches for issues.

Round trips: one. With the numbers of traces one too in an order that is asked for, and two in the usual
order, which they are part of: the first looks for issues whose traces have to be counted. Only if there are
some, because references to them have changed, three more count and keep the numbers (``counts.py``), and one
may fetch those that are on the page. A page reads the index keys of what it shows, however many traces there
are.
"""

import asyncio
import re
from typing import Any, Literal

from mlflow.entities.issue import Issue
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_ISSUES_DEFAULT_MAX_RESULTS
from mlflow.utils.search_utils import SearchIssuesUtils
from pymongo import ASCENDING, DESCENDING

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.issues.counts import count_traces
from genesis_flow.areas.issues.documents import (
    COUNT_ORDER,
    LONG_FIELDS,
    USUAL_ORDER,
    IssueFields,
    issue_entity,
    keys_of,
)
from genesis_flow.compat.issues import check_search, issue_page, refuse_newer
from genesis_flow.compat.validation import parse_experiment_id
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.mongo.scoping import scoped
from genesis_flow.search.tokens import create_token, parse_token

_SORTED_BY = {
    "name": ("name_lower", str),
    "status": ("status", str),
    "severity": ("rank", int),
    "created_timestamp": ("created_time", int),
    "last_updated_timestamp": ("last_update_time", int),
    "last_seen_timestamp": ("last_seen", int),
}
_KINDS: dict[str, type] = {**dict(_SORTED_BY.values()), "_id": str}
_FILTERED_BY = {"status": "status", "source_run_id": "source_run"}


class IssueSearch(Area):
    @property
    def _found_issues(self) -> Collection:
        return self.database.collection(IssueFields)

    @operation
    async def search_issues(
        self,
        experiment_id: str | None = None,
        filter_string: str | None = None,
        max_results: int | None = None,
        page_token: str | None = None,
        include_trace_count: bool = False,
        *,
        name: str | None = None,
        statuses: list[str] | None = None,
        severities: list[str] | None = None,
        categories: list[str] | None = None,
        order_by: list[str] | None = None,
        include_total_count: bool = False,
        view: Literal["basic", "full"] | None = None,
    ) -> PagedList[Issue]:
        """The issues that match, the worst first, of one experiment or of all."""
        validate_max_results(max_results, allow_null=True)
        limit = SEARCH_ISSUES_DEFAULT_MAX_RESULTS if max_results is None else max_results
        refuse_newer(
            name=name,
            statuses=statuses,
            severities=severities,
            categories=categories,
            order_by=order_by,
            include_total_count=include_total_count,
            view=view,
        )
        check_search(name, statuses, severities, categories, order_by, view)
        conditions = [
            *_filters(filter_string),
            *_wanted(name, statuses, severities, categories),
        ]
        query: Document = (
            {} if experiment_id is None else {"experiment_id": parse_experiment_id(experiment_id)}
        )
        if conditions:
            query["$and"] = conditions
        short = dict.fromkeys(LONG_FIELDS, 0) if view == "basic" else None
        order = _order(order_by)
        total, (documents, token, counts) = await asyncio.gather(
            self._total(query, include_total_count),
            self._by_count(query, limit, page_token, short)
            if include_trace_count and not order_by
            else self._ordered(query, order, limit, page_token, short, include_trace_count),
        )
        issues = [
            issue_entity(each, counts.get(each["_id"], 0) if include_trace_count else None)
            for each in documents
        ]
        return issue_page(issues, token, total)

    async def _total(self, query: Document, asked: bool) -> int | None:
        return await self._found_issues.count_documents(scoped(query)) if asked else None

    async def _ordered(
        self,
        query: Document,
        order: entities.Sort,
        limit: int,
        page_token: str | None,
        projection: Document | None,
        counted: bool,
    ) -> tuple[list[Document], str | None, dict[str, int]]:
        """A page in an order that the database knows."""
        kinds = [_KINDS[field] for field, _ in order]
        issues = self._found_issues
        page, token = await entities.page(issues, query, order, limit, page_token, kinds, projection)
        return page, token, await self._counts_of(page) if counted else {}

    async def _counts_of(self, issues: list[Document]) -> dict[str, int]:
        uncounted = [each["_id"] for each in issues if "counted" not in each]
        counts = await count_traces(self.database, uncounted)
        return {each["_id"]: each.get("traces", 0) for each in issues} | counts

    async def _by_count(
        self, query: Document, limit: int, page_token: str | None, projection: Document | None
    ) -> tuple[list[Document], str | None, dict[str, int]]:
        """A page in the usual order, in which of two issues as bad the one with more traces is first."""
        issues = self._found_issues
        question = [issues.name, query, "trace_count"]
        kinds = (int, int, int, str)
        after = parse_token(page_token, question, kinds)
        uncounted = await issues.find(
            scoped({**query, "counted": None}),
            {"rank": 1, "created_time": 1},
            batch_size=BATCH,
            hint="uncounted",
        ).to_list()
        counts = await count_traces(self.database, [each["_id"] for each in uncounted])
        # Those that were counted just now stand beside the others: not all of them could be kept, and one
        # whose references change at this moment must not be missed.
        rest = {**query, "traces": {"$gte": 0}, **({"_id": {"$nin": list(counts)}} if counts else {})}
        page, token = await entities.page(
            issues, rest, COUNT_ORDER, limit, page_token, kinds, projection, question
        )
        places = [_place(each, counts.get(each["_id"], 0)) for each in uncounted]
        if places := [place for place in places if after is None or place < after]:
            page, token = await self._joined(page, places, limit, token, projection, question)
        return page, token, {each["_id"]: each.get("traces", 0) for each in page} | counts

    async def _joined(
        self,
        issues: list[Document],
        places: list[list[Any]],
        limit: int,
        token: str | None,
        projection: Document | None,
        question: list[Any],
    ) -> tuple[list[Document], str | None]:
        """A page of issues that were found in order, and of others at these places."""
        places = sorted([*(_place(each, each["traces"]) for each in issues), *places], reverse=True)
        shown = [place[-1] for place in places[:limit]]
        known = {each["_id"]: each for each in issues}
        others = {"_id": {"$in": [issue_id for issue_id in shown if issue_id not in known]}}
        if others["_id"]["$in"]:
            more = self._found_issues.find(scoped(others), projection, batch_size=BATCH)
            known |= {each["_id"]: each async for each in more}
        if token is not None or len(places) > limit:
            token = create_token(question, places[min(limit, len(places)) - 1])
        return [known[issue_id] for issue_id in shown if issue_id in known], token


def _place(issue: Document, traces: int) -> list[Any]:
    """Where an issue stands in ``COUNT_ORDER``."""
    return [issue["rank"], traces, issue["created_time"], issue["_id"]]


def _order(order_by: list[str] | None) -> entities.Sort:
    if not order_by:
        return USUAL_ORDER
    order: dict[str, int] = {}
    for clause in order_by:
        field, *direction = clause.split() or [""]
        known = {(): ASCENDING, ("ASC",): ASCENDING, ("DESC",): DESCENDING}
        way = known.get(tuple(word.upper() for word in direction))
        if field not in _SORTED_BY or way is None:
            raise invalid(
                f"Invalid issue order_by: {clause!r:.100}. Use {', '.join(_SORTED_BY)} with ASC or DESC."
            )
        # Of a field that is named twice the second changes nothing.
        order.setdefault(_SORTED_BY[field][0], way)
    return [*order.items(), ("_id", DESCENDING)]


def _filters(filter_string: str | None) -> list[Document]:
    if not filter_string:
        return []
    conditions = []
    for parsed in SearchIssuesUtils.parse_search_filter(filter_string):
        value = parsed["value"]
        # As in SQL, what is not there is unlike nothing.
        test = value if parsed["comparator"] == "=" else {"$ne": value, "$exists": True}
        conditions.append({_FILTERED_BY[parsed["key"]]: test})
    return conditions


def _wanted(
    name: str | None,
    statuses: list[str] | None,
    severities: list[str] | None,
    categories: list[str] | None,
) -> list[Document]:
    conditions: list[Document] = []
    if name:
        conditions.append({"name_lower": {"$regex": re.escape(name.lower())}})
    for field, values in (("status", statuses), ("severity", severities)):
        if values:
            conditions.append({field: {"$in": list(values)}})
    if categories:
        conditions.append({"category_keys": {"$in": keys_of(categories)}})
    return conditions
