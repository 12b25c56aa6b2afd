"""Leaves out what needs a package that is not installed."""

from importlib.util import find_spec

MISSING = [name for name in ("avalanche", "nni") if find_spec(name) is None]
collect_ignore_glob = [f"ddplug/{name}/[!_]*.py" for name in MISSING]
