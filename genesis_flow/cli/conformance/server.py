"""What genesis_flow asks of a server, command by command."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bson import Int64
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError, OperationFailure

from genesis_flow.cli.conformance.at_once import at_once
from genesis_flow.cli.conformance.outcome import Check, NotTried, Wrong, expect
from genesis_flow.cli.conformance.trial import Trial
from genesis_flow.documents.plain import Document
from genesis_flow.search.compare import like_regex

_THREADS = 8
_PAGE = 7
_STREAM_SECONDS = 15.0


def _transactions(trial: Trial) -> str:
    _wants_transactions(trial)
    one, two = trial.fresh("transactions_one"), trial.fresh("transactions_two")

    def write(session: Any) -> None:
        one.insert_one({"_id": 1}, session=session)
        two.insert_one({"_id": 1}, session=session)

    with trial.db.client.start_session() as session:
        session.with_transaction(write)
        session.start_transaction()
        one.insert_one({"_id": 2}, session=session)
        session.abort_transaction()
    found = one.count_documents({}), two.count_documents({})
    expect(found == (1, 1), f"One document should be in each of two collections, there are {found}.")
    return "Over two collections: kept as a whole, and gone when aborted."


def _conflicts(trial: Trial) -> str:
    _wants_transactions(trial)
    things = trial.fresh("conflicts")
    things.insert_one({"_id": 1, "n": 0})
    client = trial.db.client
    with client.start_session() as first, client.start_session() as second:
        first.start_transaction()
        second.start_transaction()
        things.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=first)
        try:
            things.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=second)
        except OperationFailure as error:
            expect(
                error.has_error_label("TransientTransactionError"),
                f"A conflict of transactions comes without the label that asks for a repetition: {error}",
            )
        else:
            raise Wrong("Two transactions changed one document at once.")
        first.commit_transaction()
    expect(_only(things)["n"] == 1, "The transaction that won is not stored.")
    return "The second of two transactions is sent away, and told to come again."


def _wants_transactions(trial: Trial) -> None:
    if trial.portable:
        raise NotTried("The portable profile uses no transactions.")
    if trial.is_standalone:
        raise NotTried(
            "A standalone server has none: batches are written in an order that a repetition completes."
        )


def _retryable_writes(trial: Trial) -> str:
    if trial.is_standalone:
        raise NotTried("A standalone server has none; the stores repeat calls by themselves.")
    things = trial.fresh("retryable")
    command: Document = {"insert": things.name, "documents": [{"_id": 1}], "txnNumber": Int64(1)}
    # Of another client: sessions that the driver uses again would be out of step with their numbers.
    other = trial.another_client()
    with other.client.start_session() as session:
        answers = [other.command(dict(command), session=session) for _ in range(2)]
    seen = [(answer.get("n"), bool(answer.get("writeErrors"))) for answer in answers]
    expect(
        seen == [(1, False)] * 2 and things.count_documents({}) == 1,
        "A write that is sent twice under one number is not seen to be the same; the stores repeat calls by "
        "themselves.",
    )
    return "A write that is sent twice under one number is made once."


def _unique(trial: Trial) -> str:
    things = trial.fresh("unique_names")
    things.create_index([("space", ASCENDING), ("name", ASCENDING)], unique=True)
    things.insert_one({"space": "", "name": "a"})
    things.insert_one({"space": "b", "name": "a"})
    try:
        things.insert_one({"space": "", "name": "a"})
    except DuplicateKeyError:
        return "A second document with the same two fields is refused."
    raise Wrong("A unique index over two fields let a second document in.")


def _counter(trial: Trial) -> str:
    """As ids are drawn: many clients add to one document, the first of them makes it."""
    things = trial.fresh("counter")
    drawn: list[int] = []

    def draw() -> None:
        for _ in range(5):
            with suppress(DuplicateKeyError):  # another thread made it at this moment, as it may
                things.update_one({"_id": "n"}, {"$setOnInsert": {"last": 0}}, upsert=True)
            after = things.find_one_and_update({"_id": "n"}, {"$inc": {"last": 1}}, return_document=True)
            drawn.append(int((after or {}).get("last", 0)))

    at_once([draw] * _THREADS)
    expect(
        sorted(drawn) == list(range(1, len(drawn) + 1)),
        f"Numbers were drawn twice or not at all: {sorted(drawn)}",
    )
    return f"{_THREADS} clients drew {len(drawn)} numbers, each once."


def _greatest(trial: Trial) -> str:
    """The latest point of a metric: by step, then timestamp, then value."""
    things = trial.fresh("greatest")
    steps = [
        (1, 5, 2.0),
        (1, 4, 9.0),
        (2, 0, -1.0),
        (2, 0, -2.0),
        (2, 0, math.nan),
        (2, 0, math.inf),
        (-3, 9, 9.0),
    ]
    for step, timestamp, value in steps:
        point = {"step": step, "timestamp": timestamp, "value": value}
        things.update_one({"_id": 1}, {"$max": {"latest": point}}, upsert=True)
    kept = list(_only(things)["latest"].items())
    wanted = [("step", 2), ("timestamp", 0), ("value", math.inf)]
    expect(kept == wanted, f"$max over subdocuments kept {kept} and not {wanted}.")
    return "$max compares subdocuments field by field."


def _tails(trial: Trial) -> str:
    """Points that wait to be packed: a set of arrays, with its length in the filter."""
    things = trial.fresh("tails")
    things.insert_one({"_id": 1, "tail": []})
    for points in ([[1, 1, 0.5], [2, 2, 0.25]], [[2, 2, 0.25], [3, 3, math.inf]]):
        things.update_one(
            {"_id": 1, "tail.3": {"$exists": False}}, {"$addToSet": {"tail": {"$each": points}}}
        )
    tail = _only(things)["tail"]
    expect(tail == [[1, 1, 0.5], [2, 2, 0.25], [3, 3, math.inf]], f"$addToSet of arrays made {tail}.")
    full = (
        things.count_documents({"tail.2": {"$exists": True}}),
        things.count_documents({"tail.3": {"$exists": True}}),
    )
    expect(full == (1, 0), "A filter on a position of an array does not tell how long the array is.")
    return "$addToSet keeps arrays once; a position in a filter tells the length."


def _pages(trial: Trial) -> str:
    things = trial.fresh("pages")
    things.create_index([("t", DESCENDING), ("_id", ASCENDING)])
    # Every fifth has no time: it comes last.
    documents: list[Document] = [{"_id": n, **({"t": n // 3} if n % 5 else {})} for n in range(50)]
    things.insert_many(documents)
    wanted = [each["_id"] for each in sorted(documents, key=lambda each: (-each.get("t", -1), each["_id"]))]
    paged: list[int] = []
    after: Document = {}
    while page := list(things.find(after).sort([("t", DESCENDING), ("_id", ASCENDING)]).limit(_PAGE)):
        paged += [each["_id"] for each in page]
        last = page[-1]
        same = {"t": last.get("t"), "_id": {"$gt": last["_id"]}}
        later = [{"t": {"$lt": last["t"]}}, {"t": None}] if "t" in last else []
        after = {"$or": [same, *later]}
        expect(len(paged) <= len(wanted), "Pages repeat documents.")
    expect(paged == wanted, f"Pages of {_PAGE} gave another order than the one asked for: {paged}")
    return f"{len(paged)} documents in pages of {_PAGE}, each once and in order."


def _regex(trial: Trial) -> str:
    things = trial.fresh("texts")
    texts = ["abc", "ABC", "a\nc", "a.c", "abcabc", "c", ""]
    things.insert_many([{"_id": number, "text": text} for number, text in enumerate(texts)])
    cases: list[tuple[str, str, list[str]]] = [
        ("a%c", "s", ["abc", "a\nc", "a.c", "abcabc"]),
        ("a_c", "s", ["abc", "a\nc", "a.c"]),
        ("a.c", "s", ["a.c"]),
        ("%b%b%", "s", ["abcabc"]),
        ("abc", "si", ["abc", "ABC"]),
        ("%", "s", texts),
    ]
    for pattern, options, wanted in cases:
        query = {"text": {"$regex": like_regex(pattern), "$options": options}}
        found = [each["text"] for each in things.find(query).sort("_id", ASCENDING)]
        expect(found == wanted, f"LIKE {pattern!r} ({options}) found {found} and not {wanted}.")
    return f"{len(cases)} patterns of LIKE and ILIKE, with atomic groups and the end of the text."


def _nothing(trial: Trial) -> str:
    """Values that count as nothing below a dotted path; MongoDB 8 and 9 changed some of it."""
    things = trial.fresh("nothing")
    maps: list[Any] = [{}, {"k": "v"}, {"k": None}, {"k": "w"}, None]
    things.insert_many([{"_id": n, "m": each} for n, each in enumerate(maps)] + [{"_id": len(maps)}])
    cases: list[tuple[Document, list[int]]] = [
        ({"m.k": {"$in": [None, "v"]}}, [0, 1, 2, 4, 5]),
        ({"m.k": {"$nin": ["v", None]}}, [3]),
        ({"m.k": None}, [0, 2, 4, 5]),
        ({"m.k": {"$ne": None}}, [1, 3]),
        ({"m.k": {"$exists": False}}, [0, 4, 5]),
    ]
    for query, wanted in cases:
        found = [each["_id"] for each in things.find(query).sort("_id", ASCENDING)]
        expect(found == wanted, f"{query} found {found} and not {wanted}.")
    return "Comparisons with null and with absent keys of a map."


def _numbers(trial: Trial) -> str:
    things = trial.fresh("numbers")
    values: list[Any] = [math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1, 2**63 - 1, -(2**63)]
    things.insert_one({"_id": 1, "values": values, "nan": math.nan, "key%2Ewith%24": 1})
    stored = _only(things)
    same = [(type(value), str(value)) for value in stored["values"]] == [
        (Int64 if abs(value) >= 2**31 and isinstance(value, int) else type(value), str(value))
        for value in values
    ]
    expect(same and math.isnan(stored["nan"]), f"Numbers came back as {stored['values']}, {stored['nan']}.")
    return "Infinities, NaN, -0.0, the smallest and largest numbers come back as they were."


def _stages(trial: Trial) -> str:
    things, others = trial.fresh("stages"), trial.fresh("stages_beside")
    things.insert_many(
        [
            {"_id": n, "e": n % 2, "start": n * 10, "end": n * 10 + n, "v": float(n), "m": {"a%2Eb": n}}
            for n in range(6)
        ]
    )
    others.insert_many([{"_id": n} for n in range(2)])
    cases = {**_PLAIN_STAGES, **({} if trial.portable else _FULL_STAGES)}
    failed = []
    for name, (pipeline, wanted) in cases.items():
        try:
            results = list(things.aggregate(pipeline))
        except OperationFailure as error:
            failed.append(f"{name} ({error.code})")
            continue
        if not wanted(results):
            failed.append(f"{name} (gave {results})")
    expect(not failed, f"Not as MongoDB does it: {', '.join(failed)}.")
    return ", ".join(cases) + "."


_Pipeline = tuple[list[Document], Callable[[list[Document]], bool]]
_GROUPED = {"n": {"$sum": 1}, "low": {"$min": "$v"}, "high": {"$max": "$v"}, "mean": {"$avg": "$v"}}
_PLAIN_STAGES: dict[str, _Pipeline] = {
    "$group": (
        [{"$match": {"e": 1}}, {"$group": {"_id": "$e", **_GROUPED}}],
        lambda rows: rows == [{"_id": 1, "n": 3, "low": 1.0, "high": 5.0, "mean": 3.0}],
    ),
    "$expr": (
        [{"$match": {"$expr": {"$gt": [{"$subtract": ["$end", "$start"]}, 3]}}}, {"$count": "n"}],
        lambda rows: rows == [{"n": 2}],
    ),
    "$floor": (
        [{"$group": {"_id": {"$floor": {"$divide": ["$start", 20]}}, "n": {"$sum": 1}}}],
        lambda rows: sorted((row["_id"], row["n"]) for row in rows) == [(0, 2), (1, 2), (2, 2)],
    ),
    "$ifNull": (
        [{"$match": {"_id": 3}}, {"$project": {"x": {"$ifNull": ["$absent", "$v"]}}}],
        lambda rows: rows == [{"_id": 3, "x": 3.0}],
    ),
    "$unwind": (
        [{"$match": {"_id": 4}}, {"$project": {"p": {"$objectToArray": "$m"}}}, {"$unwind": "$p"}],
        lambda rows: [row["p"] for row in rows] == [{"k": "a%2Eb", "v": 4}],
    ),
    "$sample": ([{"$sample": {"size": 2}}], lambda rows: len(rows) == 2),
}
_FULL_STAGES: dict[str, _Pipeline] = {
    "$unionWith": (
        [{"$match": {"_id": 5}}, {"$unionWith": {"coll": "stages_beside", "pipeline": []}}, {"$count": "n"}],
        lambda rows: rows == [{"n": 3}],
    ),
    "$lookup": (
        [
            {"$lookup": {"from": "stages_beside", "localField": "_id", "foreignField": "_id", "as": "o"}},
            {"$match": {"o": {"$size": 1}}},
            {"$count": "n"},
        ],
        lambda rows: rows == [{"n": 2}],
    ),
    "$replaceAll": (
        [
            {"$match": {"_id": 1}},
            {"$project": {"x": {"$replaceAll": {"input": "a%2Eb", "find": "%2E", "replacement": "."}}}},
        ],
        lambda rows: rows == [{"_id": 1, "x": "a.b"}],
    ),
}


def _hints(trial: Trial) -> str:
    if trial.portable:
        raise NotTried("The portable profile sends none.")
    things = trial.fresh("hints")
    things.insert_many([{"_id": n} for n in range(3)])
    expect(len(list(things.find({"_id": {"$gte": 1}}, hint="_id_"))) == 2, "A hint changed what was found.")
    rows = list(things.aggregate([{"$sort": {"_id": -1}}, {"$limit": 1}], allowDiskUse=True))
    expect(rows == [{"_id": 2}], f"An aggregation that may use the disk gave {rows}.")
    return "hint and allowDiskUse."


def _deadlines(trial: Trial) -> str:
    things = trial.fresh("deadlines")
    things.insert_one({"_id": 1})
    expect(
        list(things.find({}, max_time_ms=10_000)) == [{"_id": 1}], "A query with a deadline found nothing."
    )
    return "maxTimeMS is accepted; each call sends it."


def _change_streams(trial: Trial) -> str:
    if trial.is_standalone:
        raise NotTried("A standalone server has none.")
    things = trial.fresh("streams")
    with things.watch(max_await_time_ms=1000) as stream:
        things.insert_one({"_id": 1})
        deadline = time.monotonic() + _STREAM_SECONDS
        while time.monotonic() < deadline:
            if (change := stream.try_next()) is not None:
                expect(
                    change["operationType"] == "insert", f"An insertion came as {change['operationType']}."
                )
                return "An insertion arrived. Nothing of genesis_flow uses them."
    raise Wrong("An insertion did not arrive. Nothing of genesis_flow uses change streams.")


def _expiry(trial: Trial) -> str:
    things = trial.fresh("expiry")
    name = things.create_index("at", expireAfterSeconds=3600)
    kept = things.index_information()[name].get("expireAfterSeconds")
    expect(kept == 3600, f"An index with an age of 3600 s was stored with {kept}.")
    return "An index with an age can be made, as for the audit trail; its effect was not waited for."


def _only(things: Any) -> Document:
    (document,) = things.find()
    found: Document = document
    return found


CHECKS = (
    Check("transactions", _transactions),
    Check("conflicts", _conflicts),
    Check("retryable writes", _retryable_writes, needed=False),
    Check("unique indexes", _unique),
    Check("counters", _counter),
    Check("latest points", _greatest),
    Check("tails", _tails),
    Check("pages", _pages),
    Check("text", _regex),
    Check("nothing", _nothing),
    Check("numbers", _numbers),
    Check("stages", _stages),
    Check("hints", _hints),
    Check("deadlines", _deadlines),
    Check("change streams", _change_streams, needed=False),
    Check("expiry", _expiry, needed=False),
)
