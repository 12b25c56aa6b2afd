"""Every example runs, on small settings, and does what it says."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_pil_image

import ddplug
from ddplug.distillers import DM
from ddplug.synthetic import SyntheticSet

FOLDER = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))  # as it is where an example is run


def test_every_example_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("[!_]*.py")} == {
        "add_a_method",
        "avalanche_checkpoint",
        "avalanche_domains",
        "avalanche_latent",
        "avalanche_online",
        "avalanche_own_images",
        "avalanche_replay",
        "distill_digits",
        "federated",
        "medical",
        "nni_search",  # in tests/nni
        "optuna_architecture",
        "optuna_hyperparameters",
        "own_images",
        "your_own_loop",
    }


def test_distill_digits(capsys: pytest.CaptureFixture[str]) -> None:
    example("distill_digits").main("a.safetensors", steps=5, repeats=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["dm", "random", "class-mean", "saved"]
    made = SyntheticSet.load("a.safetensors")
    assert (len(made), made.provenance["steps"]) == (10, 5)
    assert made.levels is not None


@pytest.mark.filterwarnings("ignore:.* were clipped:ddplug.utils.notes.Note")  # so few steps leave much outside
def test_own_images(capsys: pytest.CaptureFixture[str]) -> None:
    example("own_images").main(steps=3)
    assert "60 images of the classes digit-0, digit-1, digit-2" in capsys.readouterr().out
    assert len(SyntheticSet.load("own.safetensors")) == 6
    assert ImageFolder("own").classes == ["digit-0", "digit-1", "digit-2"]
    assert Path("own.png").read_bytes().startswith(b"\x89PNG")


def test_add_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    example("add_a_method").main()
    out = capsys.readouterr().out
    assert "the contract holds" in out
    assert "10 images, 2570 bytes" in out


def test_your_own_loop(capsys: pytest.CaptureFixture[str]) -> None:
    loop = example("your_own_loop")
    loop.main(steps=10, repeats=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["by hand", "by_hand", "own loop", "own_loop"]
    # ten classes: both sets teach well above a tenth
    assert min(float(line.split()[2]) for line in lines[1::2]) > 0.5
    # by hand is what the loop of the package does
    data = ddplug.load_dataset("digits")
    rng = torch.Generator().manual_seed(0)
    method = DM(images_per_class=1, network=loop.NETWORK, pool_size=4)
    assert loop.by_hand(data, rng, 3).inputs.equal(ddplug.distill(data, method, steps=3, seed=0).inputs)


def avalanche_example(name: str, capsys: pytest.CaptureFixture[str], **settings: int) -> list[list[str]]:
    """Run an example of continual learning, and return the words of the lines it prints."""
    pytest.importorskip("avalanche", reason="Avalanche is not installed")
    with torch.random.fork_rng():
        example(f"avalanche_{name}").main(**settings)
    return [line.split() for line in capsys.readouterr().out.splitlines() if not line.startswith("Mapping")]


def test_avalanche_replay(capsys: pytest.CaptureFixture[str]) -> None:
    lines = avalanche_example("replay", capsys, epochs=1)
    assert [line[:2] for line in lines] == [["Naive", "0"], ["Replay", "10"], ["DistilledReplay", "10"]]
    naive, stock, distilled = (float(line[4]) for line in lines)
    # the last two of ten classes are all that Naive knows
    assert naive < 0.25
    assert distilled > stock + 0.1


def test_federated_counts_the_bytes_of_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    federated = example("federated")
    found = federated.main(images=1, steps=1, rounds=(1, 2), epochs=1, training=2)
    out = capsys.readouterr().out
    assert "epsilon 10, delta 1e-05, for one record added or removed" in out
    _, coded, private, *averaged = found
    # ten sets of ten images; weights go out and come back, 4 bytes each, in every round
    assert 10 * 10 < coded.nbytes < 10 * 10 * 64
    assert private.nbytes < 10 * 10 * 64
    weights = sum(p.numel() for p in federated.build(federated.NETWORK, (1, 8, 8), 10, torch.Generator()).parameters())
    assert [each.nbytes for each in averaged] == [2 * 10 * 4 * weights, 2 * 2 * 10 * 4 * weights]


def test_federated_deals_each_record_to_one_client() -> None:
    federated = example("federated")
    data = ddplug.load_dataset("digits")
    clients = federated.deal(data, torch.Generator().manual_seed(1))
    rows = torch.cat([client.inputs.flatten(1) for client in clients])
    assert torch.equal(
        rows.unique(dim=0, return_counts=True)[1], data.inputs.flatten(1).unique(dim=0, return_counts=True)[1]
    )
    counts = torch.stack([client.targets.bincount(minlength=10) for client in clients])
    assert counts.sum() == len(data)
    assert counts.min() == federated.LEAST + 3  # an eighth of a quarter of the rest
    assert (counts.max(0).values > 0.4 * counts.sum(0)).all()


@pytest.mark.parametrize("name", ["hyperparameters", "architecture"])
def test_optuna(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed")
    main = example(f"optuna_{name}").main
    main(trials=3, steps=2, full_steps=3)
    out = capsys.readouterr().out
    assert "chosen has" in out
    assert Path(f"{name}.png").read_bytes().startswith(b"\x89PNG")
    lines = Path(f"{name}.jsonl").read_text()
    main(trials=3, steps=2, full_steps=3)
    # the second time nothing was trained
    assert (Path(f"{name}.jsonl").read_text(), capsys.readouterr().out) == (lines, out)


FEW = pytest.mark.filterwarnings("ignore:.*the noise is larger:ddplug.utils.notes.Note")
QUICK = {"steps": 2, "whole_steps": 2, "repeats": 1, "network": "convnet:width=4,depth=1"}


@FEW
def test_medical_judges_patients_that_no_network_has_seen(capsys: pytest.CaptureFixture[str]) -> None:
    found = example("medical").main(patients=12, **QUICK)
    out = capsys.readouterr().out
    assert out.startswith("6 patients, ")
    assert "6 new patients" in out
    assert list(found) == [
        "distilled, soft labels",
        "dp-dm, epsilon 10",
        "random patches",
        "mean patches",
        "all patches",
    ]
    said = {line[:24].strip(): line for line in out[out.index("differential privacy") :].splitlines()}
    assert "yes" in said["random patches"] and "3 of 3" in said["random patches"]
    assert said["dp-dm, epsilon 10"].split()[3] == "no" and said["dp-dm, epsilon 10"].endswith("for one patch")
    most = int(out.split("up to ")[1].split()[0])
    assert 0 < most <= 49 and f"epsilon {10 * most} for one patient" in out
    assert Path("medical.png").read_bytes().startswith(b"\x89PNG")
    made = SyntheticSet.load("patches-0.safetensors")
    assert (made.inputs.shape, made.targets.shape) == ((3, 1, 32, 32), (3, 3))
    assert made.class_names == ("irrelevant", "negative", "positive")
    assert made.levels is not None


@FEW
def test_medical_reads_own_images_with_masks(capsys: pytest.CaptureFixture[str]) -> None:
    medical = example("medical")
    rng = torch.Generator().manual_seed(0)
    for number in range(8):
        patient = medical.phantom(bool(number % 2), rng, size=160 + 16 * number)
        for kind, image in (("images", patient.image), ("masks", patient.mask)):
            path = Path(kind, medical.CLASSES[1 + number % 2], f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image(image).save(path)
    read = medical.read_patients(Path("images"), Path("masks"))
    assert [patient.ill for patient in read] == [False] * 4 + [True] * 4
    assert set(read[0].mask.unique().tolist()) == {0.0, 1.0}
    medical.main(Path("images"), Path("masks"), **QUICK)
    assert "4 patients" in capsys.readouterr().out
    Path("masks", "negative", "0.png").unlink()
    with pytest.raises(SystemExit, match="give every image a mask"):
        medical.main(Path("images"), Path("masks"), **QUICK)
    with pytest.raises(SystemExit, match="give both"):
        medical.main(Path("images"))
    Path("images", "other").mkdir()
    Path("images", "negative", "0.png").rename(Path("images", "other", "0.png"))
    with pytest.raises(SystemExit, match="negative, other, positive; it must have negative and positive"):
        medical.main(Path("images"), Path("masks"), **QUICK)


def test_medical_patches_votes_and_rates_are_those_counted_by_hand() -> None:
    medical = example("medical")
    image = torch.arange(128.0 * 160).view(128, 160) / (128 * 160)
    patches = medical.cut(image)
    assert patches.shape == (3 * 4, 1, 32, 32)
    # the patch below the first row's four begins 32 rows down; its first number is the mean of four pixels
    assert patches[4, 0, 0, 0] == pytest.approx(image[32:34, 0:2].mean().item())
    mask = torch.zeros(128, 160)
    mask[:, 80:] = 1
    data = medical.training_patches([medical.Patient(image, mask, True), medical.Patient(image, 1 - mask, False)])
    # columns begin at 0, 32, 64, 96: outside, a quarter inside, three quarters inside, inside; then the other way round
    assert data.targets.bincount().tolist() == [6, 3, 3]

    class Brightest(torch.nn.Module):
        """Calls bright patches ill, dim ones healthy and the rest irrelevant."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            level = data.preprocess.inverse(x).mean((1, 2, 3))
            return torch.nn.functional.one_hot(torch.where(level > 0.7, 2, torch.where(level < 0.3, 1, 0)), 3).float()

    def flat(level: float, ill: bool) -> object:
        return medical.Patient(torch.full((128, 160), level), mask, ill)

    patients = [flat(0.9, True), flat(0.8, True), flat(0.1, True), flat(0.5, True), flat(0.2, False), flat(0.9, False)]
    sensitivity, specificity, mean = medical.rates(Brightest(), patients, data)
    assert (sensitivity, specificity, mean) == pytest.approx((0.5, 0.5, 0.5))


def test_medical_phantoms_differ_in_order_alone() -> None:
    medical = example("medical")
    rng = torch.Generator().manual_seed(1)
    healthy, ill = ([medical.phantom(state, rng) for _ in range(12)] for state in (False, True))

    def inside(patients: list[object]) -> torch.Tensor:
        return torch.stack([p.image[p.mask > 0.5].std() for p in patients])  # type: ignore[attr-defined]

    # neither the brightness nor its spread gives the ill away
    assert abs(float(inside(healthy).mean() - inside(ill).mean())) < 0.015
    levels = [torch.stack([p.image[p.mask > 0.5].mean() for p in part]) for part in (healthy, ill)]
    assert abs(float(levels[0].mean() - levels[1].mean())) < 0.05


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("online", {"pieces": 75}),
        ("domains", {"epochs": 2}),
        ("own_images", {"epochs": 6, "each": 30, "classes": 2}),
    ],
)
def test_avalanche_streams(name: str, settings: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    *lines, report = avalanche_example(name, capsys, **settings)
    assert [line[:2] for line in lines] == [[who, "accuracy"] for who in ("Naive", "Replay", "DistilledReplay")]
    naive, stock, ours = (float(line[2]) for line in lines)
    assert ours >= max(naive, stock) + 0.02
    assert report[1:4] == ["images", "of", report[3]]


def test_avalanche_latent(capsys: pytest.CaptureFixture[str]) -> None:
    *lines, report = avalanche_example("latent", capsys, epochs=2, steps=60)
    without, _, features = (float(line[-1]) for line in lines)
    assert [line[0] for line in lines] == ["no", "images", "features"]
    assert features > without + 0.1
    assert int(report[6].replace(",", "")) <= int(report[9].replace(",", "")) == 640


def test_avalanche_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    kept = random.getstate(), np.random.get_state()  # a checkpoint of Avalanche brings the global random state back
    try:
        lines = avalanche_example("checkpoint", capsys, experiences=2, stop=1)
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
    assert [line[-1] for line in lines[:2]] == ["True", "True"]
