"""A distribution with plugins, installed for a test by its metadata alone."""

LOSS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Loss:
    power: float = 2.0
    def __call__(self, prediction, target, *, weight, channels):
        return (weight * (prediction - target).abs() ** self.power).mean()
"""
