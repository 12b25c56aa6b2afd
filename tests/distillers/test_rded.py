"""RDED against a slow loop that looks at one crop at a time with torch's own resizing, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ddplug import distill
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import fit
from ddplug.distillers import presets
from ddplug.distillers.parts.teachers import train_teacher
from ddplug.distillers.rded import RDED, cells
from ddplug.errors import OptionError
from ddplug.functional.crops import draw_boxes
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.testing import check_distiller, toy_images, toy_table
from tests.exact import generator, twin

NAME = "convnet:width=8,depth=1"


def cut(image: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    top, left, height, width = box.tolist()
    part = image[None, :, top : top + height, left : left + width].double()
    return interpolate(part, size=size, mode="bilinear", align_corners=False, antialias=True)[0].float()


def slow(
    data: LabeledData, teacher: nn.Module, label: int, n: int, tiles: int, draws: list[tuple[Tensor, Tensor]]
) -> list[Tensor]:
    """The images of a class, from the positions and boxes that were drawn for it."""
    height, width = data.shape[1:]
    small = (-(-height // tiles), -(-width // tiles))
    scored = []
    for position, boxes in draws:
        image = data.batch(position[None])[0]
        losses = []
        for box in boxes:
            canvas = torch.zeros(data.shape)
            top, left = (height - small[0]) // 2, (width - small[1]) // 2
            canvas[:, top : top + small[0], left : left + small[1]] = cut(image, box, small)
            losses.append(-float(teacher(canvas[None])[0].detach().double().log_softmax(0)[label]))
        best = min(range(len(losses)), key=losses.__getitem__)
        scored.append((losses[best], image, boxes[best]))
    scored = sorted(scored, key=lambda entry: entry[0])[: n * tiles**2]
    made = []
    for k in range(n):
        canvas = torch.zeros(data.shape)
        for i in range(tiles):
            for j in range(tiles):
                rows = slice(i * height // tiles, (i + 1) * height // tiles)
                columns = slice(j * width // tiles, (j + 1) * width // tiles)
                _, image, box = scored[(i * tiles + j) * n + k]
                canvas[:, rows, columns] = cut(image, box, (rows.stop - rows.start, columns.stop - columns.start))
        made.append(canvas)
    return made


@pytest.mark.parametrize("tiles", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_are_those_of_a_slow_loop(tiles: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_images((25, 30), channels=channels, size=10)
    teacher = train_teacher(NAME, data, epochs=3, rng=generator(7))
    method = RDED(images_per_class=2, teacher=teacher, tiles=tiles, candidates=21, crops=4, least_area=0.2)
    monkeypatch.setattr("ddplug.distillers.parts.features.MICRO_BATCH", 12)  # several pieces
    rng = generator(3)
    other = twin(rng)
    state = method.init(data, rng)
    expected = []
    for label in range(2):
        index = data.draw(label, 21, other)
        drawn = torch.cat([draw_boxes(len(part) * 4, data.shape, 0.2, other) for part in index.split(3)])
        expected += slow(data, teacher, label, 2, tiles, list(zip(index, drawn.view(21, 4, 4), strict=True)))
    torch.testing.assert_close(state["inputs"], torch.stack(expected), rtol=0, atol=1e-4)
    torch.testing.assert_close(state["labels"], teacher(state["inputs"]).softmax(1).detach(), rtol=1e-4, atol=1e-6)


def test_a_crop_of_all_of_the_image_with_one_candidate_is_a_random_choice() -> None:
    data = toy_images((9, 12))
    made = distill(data, RDED(images_per_class=3, teacher=NAME, candidates=1, least_area=1.0, crops=1), device="cpu")
    real = data.batch(torch.arange(len(data))).flatten(1)
    distance = torch.cdist(made.inputs.flatten(1), real)
    least, which = distance.min(1)
    assert float(least.max()) < 1e-3 and len(set(which.tolist())) == 6
    assert torch.equal(data.targets[which], torch.tensor([0, 0, 0, 1, 1, 1]))


def test_more_candidates_and_crops_give_images_that_the_teacher_knows_better() -> None:
    data = toy_images((60, 60, 60))
    teacher = train_teacher(NAME, data, epochs=10, rng=generator())

    def confidence(candidates: int, crops: int) -> float:
        method = RDED(images_per_class=2, teacher=teacher, candidates=candidates, crops=crops)
        made = distill(data, method, device="cpu")
        return float(made.targets[torch.arange(6), torch.arange(3).repeat_interleave(2)].log().mean())

    assert confidence(60, 8) > confidence(2, 1)


def test_real_images_of_bytes_stay_in_the_range_of_bytes() -> None:
    made = distill(toy_images(), RDED(images_per_class=2, teacher=NAME, tiles=2), device="cpu")
    assert float(made.pixels().min()) >= -1e-5 and float(made.pixels().max()) <= 1 + 1e-5


def test_a_class_too_small_for_its_cells_is_gone_through_again() -> None:
    data = toy_images((3, 5))
    made = distill(data, RDED(images_per_class=3, teacher=NAME, tiles=2), device="cpu")
    assert made.inputs.shape == (6, 1, 8, 8) and bool(made.inputs.isfinite().all())


@pytest.mark.parametrize(("side", "tiles"), [(8, 1), (127, 1), (128, 2), (130, 2)])
def test_the_tiles_follows_the_size(side: int, tiles: int) -> None:
    assert RDED()._tiles((3, side, side + 7)) == tiles
    assert RDED(tiles=3)._tiles((3, side, side)) == 3


@pytest.mark.parametrize("tiles", [1, 2, 3, 5, 8])
def test_cells_cover_every_pixel_once(tiles: int) -> None:
    count = torch.zeros(8, 11, dtype=torch.int64)
    found = cells((1, 8, 11), tiles)
    for rows, columns in found:
        count[rows, columns] += 1
    assert bool((count == 1).all()) and len(found) == tiles**2
    assert {rows.stop - rows.start for rows, _ in found} <= {8 // tiles, -(-8 // tiles)}


def test_large_color_images() -> None:
    data = toy_images((5, 6), channels=3, size=128)
    made = distill(data, RDED(images_per_class=2, teacher="convnet:width=4,depth=2", train_epochs=1), device="cpu")
    assert made.inputs.shape == (4, 3, 128, 128)


def test_labels_are_the_teachers_or_hard_and_counted() -> None:
    data = toy_images()
    soft = distill(data, RDED(images_per_class=2, teacher=NAME), device="cpu")
    hard = distill(data, RDED(images_per_class=2, teacher=NAME, labels="hard"), device="cpu")
    assert torch.equal(soft.inputs, hard.inputs) and hard.targets.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(soft.targets.sum(1), torch.ones(6))
    assert soft.quantize().nbytes - hard.quantize().nbytes == 6 * (3 * 2 - 1)


def test_the_contract_with_other_options(tmp_path: object) -> None:
    method = RDED(images_per_class=3, teacher=NAME, tiles=3, labels="hard")
    check_distiller(method)
    made = distill(toy_images(), replace(method, labels="soft"), device="cpu").quantize()
    made.save(f"{tmp_path}/set.safetensors")
    back = SyntheticSet.load(f"{tmp_path}/set.safetensors")
    assert back.half_labels and torch.equal(back.targets, made.targets) and torch.equal(back.inputs, made.inputs)


def test_floating_point_images_and_other_preprocessing() -> None:
    data = toy_images((12, 11))
    pixels = data.inputs.float() / 255 * 7 - 3
    for kind in ("identity", "zca"):
        other = replace(data, inputs=pixels, preprocess=fit(kind, pixels))
        made = distill(other, RDED(images_per_class=2, teacher=NAME), device="cpu")
        assert bool(made.inputs.isfinite().all())


def test_presets_give_a_teacher_of_ones_own() -> None:
    method = RDED(**{**presets.get("rded", "imagenet-1k-10"), "teacher": nn.Identity()})
    assert (method.candidates, method.crops, method.tiles) == (300, 5, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least_area": 0.0}, r"least_area is 0\.0; it must lie above 0"),
        ({"crops": 0}, "crops is 0; it must be at least 1"),
        ({"tiles": 0}, "tiles is 0; it must be 'auto' or at least 1"),
        ({"tiles": "two"}, "tiles is 'two'; it must be 'auto' or at least 1"),
        ({"labels": "fuzzy"}, "unknown kind of labels 'fuzzy'"),
        ({"train_epochs": 0}, "train_epochs is 0"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RDED(**options)  # type: ignore[arg-type]


def test_what_it_cannot_cut() -> None:
    with pytest.raises(OptionError, match=r"rded needs \(C, H, W\) images, not inputs of shape \(6,\)"):
        distill(toy_table(), RDED(images_per_class=2), device="cpu")
    with pytest.raises(OptionError, match="tiles is 9, but images are 8x8; use at most 8"):
        distill(toy_images(), RDED(images_per_class=2, tiles=9), device="cpu")
