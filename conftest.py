"""Leaves out what needs a package that is not installed."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("avalanche") else ["ddplug/avalanche/[!_]*.py"]
