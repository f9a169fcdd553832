"""Builds on other machines: a store of jobs, a service over it, and workers that take them.

The broker carries ids, and may lose or repeat them; what counts is in the store. Which side runs
what, and why, is in docs/adr/0033-the-store-knows-the-broker-only-wakes.md. What a worker imports
runs on Python 3.10 too.
"""
