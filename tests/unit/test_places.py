"""Rows of places: what they mean, and what becomes of them."""

import math
import random
from typing import Any

import pytest
from mlflow.entities import Metric

from genesis_flow.areas.metrics.documents import BLOCK_FROM
from genesis_flow.areas.metrics.heads import Points
from genesis_flow.areas.metrics.places import (
    PLACE,
    fold_of,
    laid_over,
    place_id,
    points_of,
    row_of,
    waiting_latest,
    waiting_points,
)
from genesis_flow.areas.metrics.points import distinct, step_order, unpack
from genesis_flow.documents.keys import head_id

NAN = float("nan")
KEYS = ["a", "b", "c"]
INDEXES = {key: number for number, key in enumerate(KEYS)}


def step(number: int, *, time: int | None = None, keys: list[str] = KEYS) -> dict[str, Any]:
    at = 1_000 + number if time is None else time
    return made([Metric(key, number + ord(key), at, number) for key in keys])


def made(metrics: list[Metric]) -> dict[str, Any]:
    row = row_of(INDEXES, metrics)
    assert row is not None
    return row


def by_key(rows: list[dict[str, Any]]) -> Points:
    points: Points = {}
    for row in rows:
        for key, point in points_of(KEYS, row):
            points.setdefault(key, []).append(point)
    return points


@pytest.mark.parametrize(
    "metrics",
    [
        [Metric("a", 1.5, 7, 3), Metric("b", -0.5, 7, 3), Metric("c", 2**53, 7, 3)],
        [Metric("c", 1, 7, 3), Metric("a", 2, 7, 3)],
        [Metric("a", 1, 7, 3), Metric("b", 2, 8, 3)],
        [Metric("a", 1, 7, 3), Metric("b", 2, 7, -4)],
        [Metric("a", 1, 7, 3), Metric("a", 2, 9, 4), Metric("b", math.inf, 2**62, -(2**62))],
    ],
)
def test_a_row_means_its_points(metrics: list[Metric]) -> None:
    told = [(key, point) for key, point in points_of(KEYS, made(metrics))]
    assert told == [(each.key, (each.timestamp, each.step, float(each.value))) for each in metrics]


def test_a_plain_step_takes_eight_bytes_a_point() -> None:
    row = step(1)
    assert (row["n"], row["timestamps"], row["steps"], len(row["values"])) == (3, 1_001, 1, 24)
    assert "keys" not in row


@pytest.mark.parametrize(
    "metric", [Metric("a", 1, 1, 2**63), Metric("a", 1, 2**63, 1), Metric("a", "x", 1, 1)]
)
def test_what_a_row_cannot_hold_is_no_row(metric: Metric) -> None:
    assert row_of(INDEXES, [metric]) is None


@pytest.mark.parametrize("key", [" ", " a", "!", "-", ".", "/", "0", ":", "A", "_", "a", "ü", "損失"])
def test_places_come_before_heads(key: str) -> None:
    assert place_id("run", "f" * 32).encode() < head_id("run", key).encode()


def test_the_latest_waiting_point_is_mlflows() -> None:
    dice = random.Random(7)
    for _ in range(200):
        rows = [
            step(dice.randrange(4), time=dice.randrange(3), keys=dice.sample(KEYS, dice.randint(1, 3)))
            if dice.random() < 0.5
            else made([Metric(key, dice.choice([1.0, NAN, 3.0]), dice.randrange(3), 1) for key in KEYS])
            for _ in range(dice.randint(1, 6))
        ]
        expected = {key: max(points, key=step_order) for key, points in by_key(rows).items()}
        found = waiting_latest({"keys": KEYS, "rows": rows})
        assert {key: step_order(point)[:3] for key, point in found.items()} == {
            key: step_order(point)[:3] for key, point in expected.items()
        }
        for key, points in by_key(rows).items():
            assert repr(waiting_points({"keys": KEYS, "rows": rows}, key)) == repr(points)


def test_waiting_points_are_laid_over_heads() -> None:
    heads = [
        {"key": "a", "latest": {"step": 5, "timestamp": 1, "value": 0.5}},
        {"key": "b", "latest": {"step": 1, "timestamp": 1, "value": 0.5}},
    ]
    place = {"key": PLACE, "keys": KEYS, "rows": [step(3, keys=["a", "b"])]}
    laid = {head["key"]: head["latest"] for head in laid_over([place, *heads])}
    assert laid == {
        "a": {"step": 5, "timestamp": 1, "value": 0.5},
        "b": {"step": 3, "timestamp": 1_003, "value": 3.0 + ord("b")},
    }
    assert laid_over(heads) == heads


@pytest.mark.parametrize("kind", ["plain", "sent twice", "out of order", "two at one time", "of some", "few"])
def test_a_fold_keeps_every_point_once(kind: str) -> None:
    rows = [step(number) for number in range(3 if kind == "few" else BLOCK_FROM + 3)]
    match kind:
        case "sent twice":
            rows += rows[:5]
        case "out of order":
            rows.reverse()
        case "two at one time":
            rows.append(made([Metric(key, -1, 1_005, 5) for key in KEYS]))
        case "of some":
            rows += [step(900 + number, keys=["b"]) for number in range(5)]
    fold = fold_of("run", KEYS, rows)
    folded: Points = {}
    for block in fold.blocks:
        folded.setdefault(block["_id"].split("|")[1], []).extend(unpack(block))
    tops = {}
    for update in fold.updates:
        key = update._filter["_id"].split("|")[1]
        tail = update._doc.get("$addToSet", {}).get("tail", {}).get("$each", [])
        folded.setdefault(key, []).extend((time, number, value) for time, number, value in tail)
        tops[key] = update._doc["$max"]["latest"]["step"]
        assert update._doc["$inc"] == {"folds": 1} | ({} if kind == "few" else {"packed": 1})
    expected = {key: distinct(points) for key, points in by_key(rows).items()}
    assert folded == expected
    assert tops == {key: max(point[1] for point in points) for key, points in expected.items()}
    assert fold.keys == KEYS
    assert all(block["folded"] for block in fold.blocks)
