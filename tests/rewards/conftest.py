"""Fixtures for the tests of rewards."""

from tests.isolation import box as box
