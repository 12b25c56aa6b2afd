"""A package of somebody else's, installed by pip, is found, keeps the contract and works at the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddplug import registry
from ddplug.errors import OptionError
from ddplug.synthetic.dataset import SyntheticSet

SOURCE = Path(__file__).parent / "third_party"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a folder of its own, without a network; the build leaves nothing in the source."""
    folder = tmp_path_factory.mktemp("third_party")
    source = shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(source)]
    subprocess.run(command, check=True, timeout=600)
    return folder / "site"


def run(site: Path, code: str, *arguments: str) -> list[dict[str, Any]]:
    """Run Python with the package on its path; give the JSON objects it prints, one a line."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


_USE = """
import ddplug, json, torch
from ddplug.distillation.loop import distill
from ddplug.networks.factory import build
from ddplug.testing import check_distiller

found = {kind: ddplug.names(kind) for kind in ("distiller", "network", "dataset")}
check_distiller(ddplug.resolve("distiller", "mean-pull")(images_per_class=2))
data = ddplug.load_dataset("stripes")
made = distill(data, "mean-pull", device="cpu")
network = build("linear:bias=0", data.shape, data.num_classes, torch.Generator())
refused = {}
for name in ("needs-absent", "raises"):
    try:
        ddplug.resolve("distiller", name)
    except ddplug.errors.DdplugError as error:
        refused[name] = [type(error).__name__, str(error)]
print(json.dumps({
    "found": found, "class_names": made.class_names, "method": made.provenance["method"], "refused": refused,
    "outputs": list(network(made.inputs).shape), "dm": ddplug.resolve("distiller", "dm").__module__,
}))
"""


def test_a_third_party_is_found_and_used(site: Path) -> None:
    (answer,) = run(site, _USE)
    for kind, name in (("distiller", "mean-pull"), ("network", "linear"), ("dataset", "stripes")):
        assert name in answer["found"][kind]
        assert set(registry.names(kind)) < set(answer["found"][kind])  # and ours are still there
    assert answer["class_names"] == ["upright", "level"]
    assert answer["method"] == "mean-pull"
    assert answer["outputs"] == [2, 2]
    assert answer["dm"] == "ddplug.distillers.dm"  # nobody takes over a name of ours
    # a plug-in that does not load is one clear line, when it is used
    kind, message = answer["refused"]["needs-absent"]
    assert kind == "MissingExtraError"
    assert "distiller 'needs-absent' (third_party_absent:Method) cannot be imported" in message
    assert "No module named 'third_party_absent'" in message
    kind, message = answer["refused"]["raises"]
    assert kind == "OptionError"
    assert "distiller 'raises' (third_party:missing) is broken: AttributeError" in message
    assert "\n" not in message


_COMMANDS = """
import contextlib, io, json, sys
from ddplug.cli.program import main

output = sys.argv[1]
data = ["--data", "stripes", "--device", "cpu", "-o", output]
for command in (
    ["distill", "mean-pull", *data, "--preset", "strong", "--steps", "3"],
    ["inspect", output],
    ["distill", "raises", *data],
    ["list"],
):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*command, "--json"])
    print(json.dumps({"status": status, "out": out.getvalue(), "err": err.getvalue()}))
"""


def test_the_command_line_lists_and_runs_it(site: Path, tmp_path: Path) -> None:
    output = tmp_path / "set.safetensors"
    distilled, inspected, refused, listed = run(site, _COMMANDS, str(output))
    assert [done["status"] for done in (distilled, inspected, refused, listed)] == [0, 0, 2, 0], refused
    made = SyntheticSet.load(str(output)).provenance
    assert (made["method"], made["steps"], made["config"]["pull"]) == ("mean-pull", 3, 0.9)
    assert '"mean-pull"' in inspected["out"]
    assert "distiller 'raises' (third_party:missing) is broken: AttributeError" in refused["err"]
    assert refused["err"].count("\n") == 1
    kinds = json.loads(listed["out"])
    methods = {entry["name"]: entry for entry in kinds["distillers"]}
    assert methods["mean-pull"]["about"] == "Pull real samples towards the mean of their class."
    assert "third_party_absent" in methods["needs-absent"]["error"]
    assert "linear" in {entry["name"] for entry in kinds["networks"]}
    assert "stripes" in {entry["name"] for entry in kinds["datasets"]}


def test_without_the_package_its_names_are_unknown() -> None:
    assert "mean-pull" not in registry.names("distiller")
    with pytest.raises(OptionError, match="unknown distiller 'mean-pull'"):
        registry.resolve("distiller", "mean-pull")
