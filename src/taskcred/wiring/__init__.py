"""The only place that knows every part. One module for each role: it builds what that role needs, and does
not even import what it must not have (a test holds that for the worker)."""
