"""The training that the quickstart logs: a classifier of two moons, in plain Python.

Logistic regression on the powers of two coordinates, by gradient descent with momentum. The degree decides
whether the border can follow the moons, so that the runs really differ.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

STEPS = 60
_TRAINING_POINTS = 120
_VALIDATION_POINTS = 60
_NOISE = 0.22
_MOMENTUM = 0.9

Sample = tuple[list[float], int]


@dataclass(frozen=True)
class Choice:
    """What one run tries."""

    degree: int
    learning_rate: float


@dataclass(frozen=True)
class Measurement:
    """How good the model is after a step."""

    step: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float


def choices(count: int) -> list[Choice]:
    """The first ``count`` combinations to try; the first four are worth comparing."""
    rates = (0.03, 0.3, 0.1, 0.01, 0.003, 0.001)
    combinations = [
        Choice(degree, rate) for pair in (rates[:2], rates[2:]) for degree in (1, 3, 2, 4) for rate in pair
    ]
    return combinations[:count]


MOST_CHOICES = len(choices(1000))


class MoonClassifier:
    """A model of one degree, and the data that it learns from and is measured on."""

    def __init__(self, choice: Choice, seed: int) -> None:
        self.choice = choice
        self.weights = [0.0] * len(_features(0.0, 0.0, choice.degree))
        source = random.Random(seed)
        self._training = _moons(source, _TRAINING_POINTS, choice.degree)
        self._validation = _moons(source, _VALIDATION_POINTS, choice.degree)

    def train(self) -> Iterator[Measurement]:
        """Go through the steps, measuring after each."""
        velocity = [0.0] * len(self.weights)
        for step in range(1, STEPS + 1):
            gradient = self._gradient()
            for index, slope in enumerate(gradient):
                velocity[index] = _MOMENTUM * velocity[index] - self.choice.learning_rate * slope
                self.weights[index] += velocity[index]
            train_loss, _ = self._measure(self._training)
            validation_loss, accuracy = self._measure(self._validation)
            yield Measurement(step, train_loss, validation_loss, accuracy)

    def _gradient(self) -> list[float]:
        slopes = [0.0] * len(self.weights)
        for features, label in self._training:
            error = _sigmoid(self._score(features)) - label
            for index, feature in enumerate(features):
                slopes[index] += error * feature
        return [slope / len(self._training) for slope in slopes]

    def _measure(self, samples: list[Sample]) -> tuple[float, float]:
        """Mean log loss and accuracy."""
        loss, right = 0.0, 0
        for features, label in samples:
            score = self._score(features)
            # log(1 + exp(-s)) for the label's side, written so that a large score cannot overflow.
            signed = score if label else -score
            loss += max(0.0, -signed) + math.log1p(math.exp(-abs(signed)))
            right += signed > 0
        return loss / len(samples), right / len(samples)

    def _score(self, features: list[float]) -> float:
        return sum(weight * feature for weight, feature in zip(self.weights, features, strict=True))


def _sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score >= 0 else 1 - 1 / (1 + math.exp(score))


def _moons(source: random.Random, count: int, degree: int) -> list[Sample]:
    """Points on two interleaved half circles, with noise; the label is the half circle."""
    samples = []
    for index in range(count):
        label, angle = index % 2, source.uniform(0, math.pi)
        x, y = (1 - math.cos(angle), 0.5 - math.sin(angle)) if label else (math.cos(angle), math.sin(angle))
        x, y = x + source.gauss(0, _NOISE), y + source.gauss(0, _NOISE)
        samples.append((_features(x, y, degree), label))
    return samples


def _features(x: float, y: float, degree: int) -> list[float]:
    """1 and all products of up to ``degree`` of the coordinates."""
    return [
        math.prod(factors)
        for power in range(degree + 1)
        for factors in combinations_with_replacement((x - 0.5, y - 0.25), power)
    ]
