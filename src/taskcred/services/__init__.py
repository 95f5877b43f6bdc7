"""Use cases. A service is a function over a context; it authorises, decides, acts, and audits."""
