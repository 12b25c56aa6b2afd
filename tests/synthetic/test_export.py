"""Pictures, folders, arrays, card and account, read back by something other than ddplug."""

from __future__ import annotations

import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from ddplug.data.loaders import from_arrays
from ddplug.data.preprocess import Identity, Standardize, Zca
from ddplug.distillation.loop import distill
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import DataError, OptionError
from ddplug.evaluation.figures import accuracy_curve
from ddplug.synthetic.card import card
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.export import folder_names, inspect, to_image_folder, to_npz, to_png
from ddplug.synthetic.held_out import holdout
from ddplug.synthetic.pictures import grid, image_bytes
from ddplug.synthetic.ranges import range_of
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.notes import Note


def make(channels: int = 1, size: int = 4, **changes: Any) -> SyntheticSet:
    """Six images of three classes; each image is of one value, k/255, in every channel."""
    values = torch.tensor([0, 51, 102, 153, 204, 255]).view(6, 1, 1, 1).float() / 255
    fields: dict[str, Any] = {
        "inputs": (values.expand(6, channels, size, size) - 0.5) / 0.25,
        "targets": torch.tensor([2, 0, 1, 0, 1, 2]),
        "num_classes": 3,
        "preprocess": Standardize(torch.full((channels,), 0.5), torch.full((channels,), 0.25)),
        "class_names": ("cat", "dog", "emu"),
        "provenance": {"method": "dm", "data": {"name": "toys"}},
    }
    return SyntheticSet(**{**fields, **changes})


def read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        copy: Image.Image = image.copy()
    return copy


def table() -> SyntheticSet:
    return SyntheticSet(torch.tensor([[1.5, -2.0], [0.25, 1e6]]), torch.tensor([0, 1]), 2, Identity())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quantized", [False, True])
def test_grid_shows_every_image_beside_its_class(channels: int, quantized: bool, tmp_path: Path) -> None:
    made = make(channels).quantize() if quantized else make(channels)
    to_png(made, tmp_path / "grid.png")
    shown = np.asarray(read(tmp_path / "grid.png").convert("RGB")).astype(int)
    right = shown[:, -12 - 2 * 68 :][12:, :]
    # 4 x 4 images are enlarged 16 times, with gaps of 4
    cells = [[right[68 * row : 68 * row + 64, 68 * column : 68 * column + 64] for column in (0, 1)] for row in range(3)]
    assert [[cell.reshape(-1, 3).tolist()[0] for cell in row] for row in cells] == [
        [[51] * 3, [153] * 3],
        [[102] * 3, [204] * 3],
        [[0] * 3, [255] * 3],
    ]
    assert all((cell == cell[0, 0]).all() for row in cells for cell in row)
    assert (right[64:68] == 255).all()
    # something is written left of the images
    assert (shown[:, : -12 - 2 * 68 - 12] < 100).any()
    assert [text.get_text() for text in grid(made).texts] == ["cat", "dog", "emu"]


def test_grid_keeps_pixels_square_and_in_order(tmp_path: Path) -> None:
    inputs = torch.rand(1, 3, 28, 20, generator=torch.Generator().manual_seed(0))
    made = SyntheticSet(inputs, torch.tensor([0]), 1, Identity())
    to_png(made, tmp_path / "grid.png")
    shown = np.asarray(read(tmp_path / "grid.png").convert("RGB"))
    cell = shown[12 : 12 + 28 * 4, -12 - 4 - 20 * 4 : -16]
    expected = (inputs[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert (cell == np.kron(expected, np.ones((4, 4, 1), dtype=np.uint8))).all()


def test_grid_says_what_it_leaves_out() -> None:
    assert [text.get_text() for text in grid(make(), per_row=1).texts][3:] == ["1 of 2 images per class shown"]
    many = SyntheticSet(torch.zeros(400, 1, 64, 64), torch.arange(400), 400, Identity())
    assert [text.get_text() for text in grid(many).texts][-1] == "176 of 400 classes shown"
    assert [text.get_text() for text in grid(make().select([2])).texts] == ["emu"]
    with pytest.raises(OptionError, match="per_row is 0; it must be at least 1"):
        grid(make(), per_row=0)


def test_grid_of_names_that_are_not_plain_text(tmp_path: Path) -> None:
    names = ("$\\bad_{", "日本\n", "a very long name that has no end at all")
    to_png(make(class_names=names), tmp_path / "grid.png")
    assert [text.get_text() for text in grid(make(class_names=names)).texts] == [
        "$\\bad_{",
        "???",
        "a very long name that has n...",
    ]


def test_grid_of_large_images_stays_viewable(tmp_path: Path) -> None:
    wide = SyntheticSet(torch.zeros(2, 1, 1, 70_000), torch.tensor([0, 1]), 2, Identity())
    to_png(wide, tmp_path / "wide.png")
    assert max(read(tmp_path / "wide.png").size) < 2000


def test_pictures_clip_and_round() -> None:
    made = SyntheticSet(
        torch.tensor([[[[-3.0, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 9.0]]]]), torch.tensor([0]), 1, Identity()
    )
    assert image_bytes(made).tolist() == [[[0, 0, 0, 1, 255, 255]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder_is_read_by_torchvision(channels: int, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    to_image_folder(make(channels), tmp_path / "out")
    back = ImageFolder(str(tmp_path / "out"))
    assert back.classes == ["cat", "dog", "emu"]
    assert [(np.asarray(image)[0, 0].tolist(), label) for image, label in back] == [
        ([value] * 3, label) for value, label in ((51, 0), (153, 0), (102, 1), (204, 1), (0, 2), (255, 2))
    ]
    assert read(tmp_path / "out" / "cat" / "0001.png").mode == ("L" if channels == 1 else "RGB")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_image_folder_of_real_bytes_is_exact(tmp_path: Path) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    preprocess = Standardize(torch.tensor([0.1307]), torch.tensor([0.3081]))
    made = SyntheticSet(preprocess.forward(codes.float() / 255), torch.tensor([0]), 1, preprocess)
    to_image_folder(made, tmp_path / "out")
    assert (np.asarray(read(tmp_path / "out" / "0" / "0000.png")) == codes[0, 0].numpy()).all()


def test_hostile_class_names_stay_inside(tmp_path: Path) -> None:
    names = ("../../etc", "/abs", "..", "a/b", "A/B", "", "x" * 255, "con\0\n", "ok.", "日本", "Aux")
    folders = folder_names(names)
    assert folders == ["_.._etc", "_abs", "class", "a_b", "A_B-2", "class-2", "x" * 100, "con__", "ok", "日本", "Aux_"]
    made = SyntheticSet(torch.zeros(11, 1, 2, 2), torch.arange(11), 11, Identity(), class_names=names)
    to_image_folder(made, tmp_path / "deep" if (tmp_path / "deep").exists() else tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(folders)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_may_be_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    to_image_folder(make(), "~/out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OptionError, match="holds a NUL character"):
        to_image_folder(make(), "a\0b")


def test_image_folder_refuses(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    for taken in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with pytest.raises(OptionError, match=f"cannot write {taken}: it is not an empty folder"):
            to_image_folder(make(), taken)
    with pytest.raises(OptionError, match=r"cannot write .*none/out: No such file or directory; nothing was changed"):
        to_image_folder(make(), tmp_path / "none" / "out")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/mine.txt"]


@pytest.mark.parametrize(
    "made", [table(), make(2), SyntheticSet(torch.zeros(1, 1, 9), torch.tensor([0]), 1, Identity())]
)
def test_pictures_of_what_is_no_picture_are_refused(made: SyntheticSet, tmp_path: Path) -> None:
    message = f"inputs of the shape {re.escape(str(made.shape))} are not images .*; export to npz instead"
    with pytest.raises(DataError, match=message):
        to_png(made, tmp_path / "out.png")
    with pytest.raises(DataError, match=message):
        to_image_folder(made, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("made", [make(), make(3), make(2), table()])
def test_npz_is_plain_arrays(made: SyntheticSet, tmp_path: Path) -> None:
    to_npz(made, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert arrays["pixels"].dtype == np.float32
        assert (arrays["pixels"] == made.pixels().numpy()).all()
        assert (arrays["targets"] == made.targets.numpy()).all()
        assert tuple(arrays["class_names"].tolist()) == made.class_names
        assert str(arrays["preprocess"]) == made.preprocess.kind
        kept = {name: arrays[f"preprocess_{name}"].tolist() for name in made.preprocess.tensors()}
    assert kept == {name: tensor.tolist() for name, tensor in made.preprocess.tensors().items()}


def test_npz_of_a_quantized_set_keeps_codes(tmp_path: Path) -> None:
    made = make(targets=torch.eye(3).repeat(2, 1)).quantize()
    to_npz(made, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert "pixels" not in arrays
        assert arrays["codes"].dtype == np.uint8 and arrays["targets"].dtype == np.float32
        low, high = arrays["levels"].astype(float)
        pixels = low + arrays["codes"] / 255 * (high - low)
    assert np.abs(pixels - made.pixels().numpy()).max() < 1e-6


def test_inspect_counts_by_hand(tmp_path: Path) -> None:
    inputs = torch.full((4, 2, 2), 0.5).view(4, 1, 2, 2).clone()
    inputs[0, 0, 0, 0], inputs[1, 0, 1, 1] = -0.5, 1.5
    made = SyntheticSet(inputs, torch.tensor([0, 0, 0, 2]), 3, Identity(), Recipe(epochs=5), provenance={"seed": 1})
    facts = inspect(made)
    assert facts == {
        "samples": 4,
        "shape": [1, 2, 2],
        "stored_shape": [1, 2, 2],
        "num_classes": 3,
        "class_names": ["0", "1", "2"],
        "samples_per_class": [3, 0, 1],
        "labels": "hard",
        "storage": "float32",
        "bits": 32,
        "codec": None,
        "nbytes": 4 * 4 * 4 + 4,
        "bits_per_class": (4 * 4 * 4 + 4) * 8 / 3,
        "psnr": None,
        "real_images": None,
        "privacy": None,
        "pixel_range": [-0.5, 1.5],
        "outside_unit_range": 2 / 16,
        "preprocess": "identity",
        "recipe": Recipe(epochs=5).to_json(),
        "provenance": {"seed": 1},
    }
    made.save(tmp_path / "set.safetensors")
    assert inspect(tmp_path / "set.safetensors") == json.loads(json.dumps(facts)) == facts


def test_card_says_what_matters() -> None:
    text = card(make().quantize(), "toys.safetensors")
    for part in (
        "6 samples of shape 1 x 4 x 4 made by `dm` from `toys`.",
        "| stored bytes, labels counted | 110 |",
        "| stored as | `plain`, class indices |",
        "| `emu` | 2 |",
        "synthetic = SyntheticSet.load('toys.safetensors')",
        '"std": [\n    0.25\n  ]',
        '"epochs": 301',
        '"method": "dm"',
        "the license of the real data applies",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ({"real_images": True}, "yes"),
        ({"real_images": False}, "no"),
        ({}, "not known"),
        ({"merged": [{"real_images": False}, {"real_images": True}]}, "yes"),
        ({"merged": [{"real_images": False}, {}]}, "not known"),
        ({"merged": [{"real_images": False}, {"real_images": False}]}, "no"),
        ({"merged": 7}, "not known"),
    ],
)
def test_card_says_whether_there_are_real_images(provenance: dict[str, Any], expected: str) -> None:
    assert f"| holds real images | {expected} |" in card(make(provenance=provenance))


def test_card_and_inspect_say_what_a_codec_holds() -> None:
    coded = make().compress("pixels:bits=2")
    text, facts = card(coded), inspect(coded)
    assert (facts["codec"], facts["bits"], facts["storage"]) == ("pixels:bits=2", None, "codec")
    assert facts["bits_per_class"] == 8 * facts["nbytes"] / 3
    assert "| stored as | `pixels:bits=2`, class indices |" in text
    assert f"| nearness to what was stored (PSNR) | {facts['psnr']:.1f} dB |" in text


def test_card_of_other_sets() -> None:
    text = card(table())
    assert "2 samples of shape 2." in text and "`identity`" in text
    wide = Zca(torch.zeros(100), torch.eye(100), torch.eye(100))
    soft = SyntheticSet(torch.zeros(200, 100), torch.eye(200), 200, wide)
    text = card(soft)
    assert "soft labels over 200 classes" in text
    assert '"matrix": "10000 numbers, in the file"' in text
    assert "| and 100 more | |" in text


def test_card_is_not_broken_by_hostile_text() -> None:
    names = ("a`|\n# b", "```", "")
    text = card(make(class_names=names, provenance={"method": "x\n```\n# y", "note": "```\n# z"}))
    lines = text.splitlines()
    assert "| `a'/?# b` | 2 |" in lines and "| `'''` | 2 |" in lines and "| ` ` | 2 |" in lines
    assert not {"# b", "# y", "# z"} & set(lines)
    assert [line[:3] for line in lines if line.startswith("```")] == ["```"] * 8


def test_curve_holds_the_numbers_given() -> None:
    rows = [
        {"method": method, "nbytes": size, "images_per_class": size // 785, "mean": mean, "std": 0.01}
        for method, size, mean in (("dm", 78500, 0.96), ("random", 7850, 0.6), ("dm", 7850, 0.88))
    ]
    for budget, expected in (("nbytes", [7850, 78500]), ("images_per_class", [10, 100])):
        figure = accuracy_curve(rows, budget=budget, whole=0.99, title="$toys")  # type: ignore[arg-type]
        axes = figure.axes[0]
        lines = {container.get_label(): container for container in axes.containers}
        assert list(lines) == ["dm", "random"]
        line, _, (bars,) = lines["dm"]
        assert line.get_xdata().tolist() == expected
        np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), [88, 96])
        np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], [[87, 89], [95, 97]])
        dashed = [each for each in axes.lines if each.get_linestyle() == "--"]
        assert [each.get_label() for each in dashed] == ["all real data (99.0%)"]
        np.testing.assert_allclose(np.asarray(dashed[0].get_ydata(), dtype=float), [99, 99])
        assert axes.get_xscale() == "log" and axes.get_ylabel() == "test accuracy (%)"
        assert axes.get_xticks().tolist() == expected
        figure.savefig(io.BytesIO(), format="png")
    assert accuracy_curve(rows).axes[0].xaxis.get_major_formatter()(78500, 0) == "78.5 kB"


def test_curve_refuses() -> None:
    with pytest.raises(OptionError, match="there is no row to plot"):
        accuracy_curve([])
    with pytest.raises(OptionError, match="budget is 'time'; it must be nbytes or images_per_class"):
        accuracy_curve([], budget="time")  # type: ignore[arg-type]


def real_images(kind: str) -> Any:
    """Images in the ranges that data sets come in, and the bytes that they are made of."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    pixels[0], pixels[1] = 0, 255
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in ([0.485, 0.4, 0.3], [0.2, 0.3, 0.4]))
    unit = pixels.astype(np.float32) / 255
    kinds = {
        "uint8": pixels,
        "0..1": unit,
        "0..255": pixels.astype(np.float32),
        "-1..1": 2 * unit - 1,
        "normalized": (unit - mean) / std,
    }
    return kinds[kind], pixels


RANGES = ["uint8", "0..1", "0..255", "-1..1", "normalized"]


@pytest.mark.parametrize("preprocess", ["standardize", "identity", "zca"])
@pytest.mark.parametrize("kind", RANGES)
def test_pictures_are_those_of_the_real_bytes_whatever_their_range(kind: str, preprocess: str, tmp_path: Path) -> None:
    images, pixels = real_images(kind)
    data = from_arrays(images, np.arange(20) % 2, preprocess=preprocess)
    for made in (distill(data, Random(images_per_class=10), device="cpu"), holdout(data)):
        shown = image_bytes(made.merge(made)).permute(0, 3, 1, 2).numpy()
        found = {image.tobytes(): image for image in shown}
        assert len(found) == 20
        nearest = [min(found.values(), key=lambda own: np.abs(own.astype(int) - each).max()) for each in pixels]
        assert np.abs(np.stack(nearest).astype(int) - pixels).max() <= 1


@pytest.mark.parametrize("kind", RANGES)
def test_an_export_says_when_values_are_scaled(kind: str, tmp_path: Path) -> None:
    data = from_arrays(real_images(kind)[0], np.arange(20) % 2)
    made = distill(data, Random(images_per_class=10), device="cpu")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        to_image_folder(made, tmp_path / "out")
        to_png(made, tmp_path / "out.png")
    texts = [str(each.message) for each in said]
    assert all("became black to white" in text and "clipped" not in text for text in texts)
    assert len(texts) == (0 if kind in ("uint8", "0..1") else 2)


def test_an_export_says_how_much_is_clipped(tmp_path: Path) -> None:
    over = make(inputs=torch.tensor([-1.0, 0.0, 0.5, 1.0, 1.0, 1.5]).view(6, 1, 1, 1) * 4 - 2)
    with pytest.warns(Note, match="33 % of the values lie outside black and white and were clipped"):
        to_image_folder(over, tmp_path / "out")


@pytest.mark.parametrize("said", [[[0.0], [255.0]], [[], []], [["a"], [1]], [[float("nan")], [1]], [[1], [0]], "x", 7])
def test_a_range_that_a_file_says_is_not_trusted(said: Any) -> None:
    own = make(provenance={"method": "dm", "data_range": said})
    fine = said == [[0.0], [255.0]]
    assert torch.equal(range_of(own)[:, 0], torch.tensor([0.0, 255.0 if fine else 1.0]))
    assert image_bytes(own).max() == (1 if fine else 255)


def test_a_set_that_does_not_say_is_judged_by_its_preprocessing() -> None:
    bytes_ = Standardize(torch.tensor([127.0]), torch.tensor([60.0]))
    own = make(inputs=torch.linspace(-2, 2, 6).view(6, 1, 1, 1).expand(6, 1, 4, 4), preprocess=bytes_)
    assert image_bytes(own)[:, 0, 0].tolist() == [0, 51, 102, 153, 204, 255]
