"""Benchmarks: figures as ratios beside their reference or floor, measured interleaved in one run.

`make bench` runs all of them and writes bench/RESULTS.md; `python -m bench NAME` runs one. Never part of
the tests: these numbers need a quiet machine, and say so when they did not have one.
"""
