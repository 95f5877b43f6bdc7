"""The REST API: one app, one table of who may enter, one table of problems, routes by noun."""
