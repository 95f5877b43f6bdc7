"""taskcred: a self-hosted task credentials service. A job never holds the user's key."""

__version__ = "0.1.0"
