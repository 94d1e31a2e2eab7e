"""The quick readers of small files say what the slow and safe ones say."""

import random
from array import array
from pathlib import Path

import pytest
import yaml

from genesis_flow.areas.metrics.points import distinct, latest, pack, pack_columns
from genesis_flow.importers.records import SERIES_POINTS, Series
from genesis_flow.importers.tree.files import Damaged, read_meta
from genesis_flow.importers.tree.metrics import read_metric
from genesis_flow.importers.writers.points import latest_of, ordered

# What YAML reads in ways of its own, or not at all.
TEXTS = (
    *(
        "",
        "a",
        "yes",
        "On",
        "n",
        "null",
        "~",
        "1e5",
        "0x1f",
        "012",
        "1_000",
        "12:30",
        "2020-01-01",
        "1.",
        ".inf",
    ),
    *(
        "a: b",
        "a #b",
        "'q'",
        "é",
        "- x",
        "[x",
        "{y",
        "/a/b",
        "s3://b/x y",
        "file:///x#y",
        "http://h:80/p",
        "x:",
    ),
    *(
        "=",
        "<<",
        "~x",
        "abc ",
        "%x",
        "@x",
        "`x",
        "!x",
        "&x",
        "*x",
        "a:b",
        "C:\\x",
        "x/../y",
        "a,b",
        "?x",
        "|",
    ),
    *(
        "0b11",
        "a" * 32,
        "1" * 32,
        "12345678e12345678901234567890123",
        "0" * 31 + "e",
        "> x",
        "nan",
        "trailing:",
    ),
)


def test_meta_files_as_yaml_reads_them(tmp_path: Path) -> None:
    values = [*TEXTS, None, True, 1, -5, 1.5, "a\nb", [], {}, ["x"], {"k": "v"}]
    rng = random.Random(3)
    path = tmp_path / "meta.yaml"
    for _ in range(1_500):
        fields = {f"field_{number}": rng.choice(values) for number in range(3)}
        path.write_text(yaml.safe_dump(fields, default_flow_style=False, allow_unicode=True))
        assert read_meta(str(path)) == fields


@pytest.mark.parametrize("form", ["key: {}\n", "key: '{}'\n", "key: {}"])
def test_meta_files_written_by_hand(tmp_path: Path, form: str) -> None:
    path = tmp_path / "meta.yaml"
    for text in TEXTS:
        path.write_text(form.format(text))
        try:
            expected = yaml.safe_load(path.read_text())
        except yaml.YAMLError:
            expected = None
        if isinstance(expected, dict):
            assert repr(read_meta(str(path))) == repr(expected)
        else:
            with pytest.raises(Damaged):
                read_meta(str(path))


def test_points_by_the_column() -> None:
    """Blocks and latest points are those that the store makes of the same points."""
    rng = random.Random(4)
    for _ in range(300):
        points = [
            (rng.randrange(3), rng.randrange(3), rng.choice([0.0, 1.0, float("nan"), float("inf")]))
            for _ in range(rng.randrange(1, 12))
        ]
        if rng.random() < 0.3:
            points = [(step, step, value) for step, (_, _, value) in enumerate(points)]
        timestamps, steps, values = zip(*points, strict=True)
        columns = array("q", timestamps), array("q", steps), array("d", values)
        in_order = ordered(*columns)
        assert repr(list(zip(*in_order, strict=True))) == repr(distinct(points))
        assert pack_columns("r", "k", *in_order) == pack("r", "k", points)
        assert repr(latest([latest_of(*columns)])) == repr(latest(points))


def test_a_long_file_comes_in_pieces_of_one_size(tmp_path: Path) -> None:
    count = 2 * SERIES_POINTS + 7
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "loss"
    path.write_text("".join(f"{1_700_000_000_000 + step} {step / 3} {step}\n" for step in range(count)))
    found = list(read_metric("run", str(tmp_path), str(path)))
    assert all(isinstance(each, Series) for each in found)
    pieces = [each for each in found if isinstance(each, Series)]
    assert [len(each) for each in pieces] == [SERIES_POINTS, SERIES_POINTS, 7]
    assert {each.key for each in pieces} == {"train/loss"}
    assert [step for each in pieces for step in each.steps] == list(range(count))
    assert pieces[1].values[5] == (SERIES_POINTS + 5) / 3
