"""A browser for the steps that a reader does in one."""

from tests.browser.conftest import browser

__all__ = ["browser"]
