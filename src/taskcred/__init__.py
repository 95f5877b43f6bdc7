"""taskcred: a self-hosted task credentials service. A job never holds the user's key."""

from importlib.metadata import version

__version__ = version("taskcred")
