"""The training that the quickstart shows is a real one."""

from xml.etree import ElementTree

import pytest

from genesis_flow.cli.chart import line_chart
from genesis_flow.cli.training import MOST_CHOICES, STEPS, Choice, MoonClassifier, choices

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("seed", range(3))
def test_training_learns(seed: int) -> None:
    measured = list(MoonClassifier(Choice(degree=3, learning_rate=0.3), seed).train())
    assert [each.step for each in measured] == list(range(1, STEPS + 1))
    assert measured[-1].train_loss < measured[0].train_loss / 2
    assert measured[-1].validation_accuracy > 0.85


def test_training_is_the_same_for_the_same_seed_only() -> None:
    choice = Choice(degree=1, learning_rate=0.3)
    first, again, other = (
        [each.train_loss for each in MoonClassifier(choice, seed).train()] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_choices_are_distinct_and_begin_with_a_comparison() -> None:
    assert len(set(choices(MOST_CHOICES))) == MOST_CHOICES
    assert {choice.degree for choice in choices(4)} == {1, 3}
    assert len({choice.learning_rate for choice in choices(4)}) == 2


def test_a_chart_is_svg_with_a_line_for_each_curve_inside_its_frame() -> None:
    chart = ElementTree.fromstring(
        line_chart("Loss & more", "step", {"<a>": [3.0, 2.0, 1.0], "b": [1.0, 1.0]})
    )
    lines = chart.findall(f"{SVG}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 2]
    width, height = float(chart.attrib["width"]), float(chart.attrib["height"])
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert "<a>" in [text.text for text in chart.findall(f"{SVG}text")]
