"""A number of bytes in place of a number of images: what is made fits, and leaves little; by the codec's real size."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import ddplug
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.storage import Storage, with_recipe
from ddplug.distillers import DM, RDED, ClassMean, KMeans, Random
from ddplug.distillers.soft_label_dd import SoftLabelDD
from ddplug.errors import CheckpointError, OptionError
from ddplug.evaluation.comparison import compare
from ddplug.evaluation.learned import evaluate_as_learned
from ddplug.synthetic import Recipe, SyntheticSet
from ddplug.synthetic.codecs import Pixels, spec_of, suited
from ddplug.testing import made_small, toy_images, toy_table
from tests.toy_distillers import MeanMatching

SMALL_DM = replace(made_small(DM()), steps=2)


def photographs(counts: tuple[int, ...] = (60, 50), side: int = 16) -> LabeledData:
    """Smooth RGB images."""
    rng = torch.Generator().manual_seed(0)
    slopes = torch.rand(sum(counts), 3, 1, 1, generator=rng)
    inputs = (slopes * torch.linspace(0, 255, side)).expand(-1, 3, side, side).to(torch.uint8)
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    names = tuple(map(str, range(len(counts))))
    return replace(toy_images(counts, channels=3, size=side), inputs=inputs, targets=targets, class_names=names)


def file_bytes(made: SyntheticSet, path: Path) -> int:
    """Bytes of the tensors in the file of a set, without the preprocessing."""
    made.save(path)
    from safetensors.numpy import load_file

    return sum(array.nbytes for name, array in load_file(path).items() if not name.startswith("preprocess."))


@pytest.mark.parametrize("method", [Random(), KMeans(), ClassMean(), SMALL_DM], ids=lambda method: method.name)
@pytest.mark.parametrize(
    ("data", "nbytes", "codec"),
    [
        (toy_images((40, 30, 50)), 900, "pixels:bits=4"),
        (toy_images((40, 30, 50), channels=3), 2500, "pixels:bits=2"),
        (photographs(), 900, "avif:quality=20"),
        (toy_table((40, 30, 50)), 300, "pixels:bits=8"),
    ],
    ids=["gray", "rgb", "photographs", "table"],
)
def test_bytes_are_kept_to_and_filled(
    method: Distiller, data: LabeledData, nbytes: int, codec: str, tmp_path: Path
) -> None:
    options: Any = method
    if data.inputs.ndim == 2 and method.name == "dm":
        options = replace(options, network="mlp")
    made = ddplug.distill(data, options, nbytes=nbytes, codec=codec, device="cpu")
    assert file_bytes(made, tmp_path / "set") == made.nbytes <= nbytes
    counts = made.hard_targets.bincount(minlength=data.num_classes)
    assert len(set(counts.tolist())) == 1
    assert (made.provenance["nbytes"], made.provenance["codec"]) == (nbytes, spec_of(codec))
    if method.steps == 0 and counts[0] < min(map(len, data.class_indices)):
        # one image a class more would be too much, or next to nothing is left
        more = ddplug.distill(data, replace(options, images_per_class=int(counts[0]) + 1), device="cpu")
        assert more.compress(codec).nbytes > nbytes or made.nbytes >= 0.98 * nbytes


def test_a_finished_set_that_takes_too_much_loses_its_last_images() -> None:
    rng = torch.Generator().manual_seed(0)
    made = SyntheticSet(torch.rand(40, 1, 8, 8, generator=rng), torch.arange(40) % 2, 2, Identity())
    kept = Storage("pixels:bits=8", 1000).store(made)
    assert 1000 - 2 * 68 < kept.nbytes <= 1000  # another image of each class takes that
    counts = kept.hard_targets.bincount()
    number = int(counts[0])
    assert counts.tolist() == [number, number]
    first = replace(made, inputs=made.inputs[: 2 * number], targets=made.targets[: 2 * number])
    assert torch.equal(first.compress("pixels:bits=8").inputs, kept.inputs)


def test_all_there_is_when_it_fits() -> None:
    made = ddplug.distill(toy_images((12, 7)), "random", nbytes=10**6, device="cpu")
    assert made.hard_targets.bincount().tolist() == [7, 7]


def test_the_same_seed_gives_the_same_set_and_another_another() -> None:
    data = toy_images((40, 30, 50))
    one, two, other = (ddplug.distill(data, "random", nbytes=500, seed=seed, device="cpu") for seed in (1, 1, 2))
    assert torch.equal(one.inputs, two.inputs)
    assert one.provenance["config"] == two.provenance["config"]
    assert one.inputs.shape != other.inputs.shape or not torch.equal(one.inputs, other.inputs)


def test_what_fits_is_what_the_method_itself_makes_of_that_number() -> None:
    data = toy_images((40, 30, 50))
    made = ddplug.distill(data, KMeans(), nbytes=600, codec="pixels:bits=4", seed=3, device="cpu")
    again = ddplug.distill(data, KMeans(len(made) // 3), codec="pixels:bits=4", seed=3, device="cpu")
    assert torch.equal(made.inputs, again.inputs)


@pytest.mark.parametrize("stopped", [0, 3])
def test_a_run_with_bytes_goes_on(tmp_path: Path, stopped: int) -> None:
    data, method = toy_images((30, 30, 30)), MeanMatching(steps=6)
    options: dict[str, Any] = {"nbytes": 500, "device": "cpu"}
    path = tmp_path / "run"
    ddplug.distill(data, method, checkpoint=path, steps=stopped, **options)
    resumed = ddplug.distill(data, method, checkpoint=path, **options)
    assert torch.equal(resumed.inputs, ddplug.distill(data, method, **options).inputs)
    with pytest.raises(CheckpointError, match="its number of bytes was 500 and is now 501"):
        ddplug.distill(data, method, checkpoint=path, **{**options, "nbytes": 501})
    with pytest.raises(CheckpointError, match="its codec was 'pixels:bits=4' and is now 'pixels'"):
        ddplug.distill(data, method, checkpoint=path, codec="pixels", **options)


def test_a_selection_with_bytes_is_taken_up(tmp_path: Path) -> None:
    data, path = toy_images((30, 30, 30)), tmp_path / "run"
    one, two = (ddplug.distill(data, "kmeans", nbytes=500, checkpoint=path, device="cpu") for _ in range(2))
    assert torch.equal(one.inputs, two.inputs)
    assert one.nbytes == two.nbytes


def test_soft_labels_are_counted(tmp_path: Path) -> None:
    made = ddplug.distill(toy_images((30, 30, 30)), made_small(RDED()), nbytes=700, device="cpu")
    assert made.targets.shape == (len(made), 3)
    assert made.stored is not None
    assert made.stored.nbytes + 2 * 3 * len(made) == made.nbytes == file_bytes(made, tmp_path / "set") <= 700


def test_a_learned_training_survives_images_left_out() -> None:
    data = toy_images((30, 30, 30))
    method = SoftLabelDD(network="convnet:width=4,depth=1", steps=2, images_per_class=4)
    whole = ddplug.distill(data, method, device="cpu")
    fewer = Storage("pixels:bits=8", whole.compress("pixels:bits=8").nbytes * 2 // 3).store(whole)
    assert 0 < len(fewer) < len(whole)
    assert evaluate_as_learned(fewer, data, repeats=1, device="cpu").n == 1


def test_a_factor_makes_more_and_smaller_images() -> None:
    data = photographs((40, 40))
    made = ddplug.distill(data, replace(SMALL_DM, factor=2), nbytes=900, codec="pixels:bits=4", device="cpu")
    assert made.inputs.shape[1:] == (3, 8, 8)
    assert len(made) % 2 == 0
    assert made.nbytes <= 900


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (toy_images(), {"nbytes": 60}, "60 bytes are too few for one image of each of 3 classes, which take "),
        (toy_images(), {"nbytes": 1}, "1 bytes are too few"),
        (toy_images(), {"nbytes": 0}, "nbytes is 0; it must be at least 1"),
        (toy_images(), {"codec": "jpeg"}, "unknown codec 'jpeg'"),
        (toy_table(), {"codec": "avif", "nbytes": 999}, "codec avif holds gray and RGB images"),
        (toy_images(), {"codec": "pixels:bits=3"}, "bits is 3; it must be one of 1, 2, 4, 8"),
    ],
)
def test_refusals_come_before_any_work(data: LabeledData, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as error:
        ddplug.distill(data, Untouchable(), device="cpu", **options)
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Untouchable(MeanMatching):
    """Fails where it is set to work."""

    name: ClassVar[str] = "untouchable"

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        raise AssertionError("work was begun")


def test_a_method_without_a_number_of_images_is_refused() -> None:
    @dataclass(frozen=True)
    class Fixed:
        name: ClassVar[str] = "fixed"
        steps: int = 0

        def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
            raise AssertionError("work was begun")

    with pytest.raises(OptionError, match="fixed has no images_per_class that could be fitted"):
        ddplug.distill(toy_images(), Fixed(), nbytes=999, device="cpu")  # type: ignore[arg-type]


def test_a_factor_that_asks_for_more_than_a_class_has_is_refused() -> None:
    with pytest.raises(OptionError, match=r"images per class is 1 \(4 small ones for each, with factor 2\), but no"):
        ddplug.distill(toy_images((3, 3)), replace(SMALL_DM, factor=2), nbytes=10**5, device="cpu")


def test_the_number_that_is_too_few_says_what_suffices() -> None:
    data = toy_images()
    with pytest.raises(OptionError, match="allow ") as error:
        ddplug.distill(data, "random", nbytes=20, device="cpu")
    needed = int(str(error.value).split("allow ")[1].split()[0])
    assert ddplug.distill(data, "random", nbytes=needed, device="cpu").nbytes <= needed


def test_a_codec_alone_holds_what_is_made() -> None:
    data = toy_images()
    made = ddplug.distill(data, Random(2), codec=Pixels(bits=2), device="cpu")
    whole = ddplug.distill(data, Random(2), device="cpu")
    assert torch.equal(made.inputs, whole.compress("pixels:bits=2").inputs)
    assert made.provenance["codec"] == "pixels:bits=2"
    assert "nbytes" not in made.provenance


@pytest.mark.parametrize(
    ("method", "expected"), [(Random(1), True), (ClassMean(1), False), (replace(SMALL_DM, steps=1), False)]
)
def test_provenance_says_whether_images_are_real(method: Distiller, expected: bool) -> None:
    assert ddplug.distill(toy_images(), method, device="cpu").provenance["real_images"] is expected


def drawings(side: int) -> LabeledData:
    """Black and white blocks."""
    rng = torch.Generator().manual_seed(0)
    inputs = (torch.rand(30, 1, side, side, generator=rng) > 0.7).to(torch.uint8) * 255
    return replace(toy_images((10, 10, 10), size=side), inputs=inputs)


def test_auto_tells_drawings_photographs_and_tables_apart() -> None:
    assert suited(drawings(8)) == suited(drawings(28), 100) == "pixels:bits=1"
    assert suited(photographs(side=32)) == "avif:quality=25"
    # 25, 100 and 250 thousand bits for each of two classes
    assert [suited(photographs(side=32), 2 * kilobits * 125) for kilobits in (1, 25, 100, 250)] == [
        "avif:quality=5",
        "avif:quality=5",
        "avif:quality=15",
        "avif:quality=25",
    ]
    assert suited(photographs(side=64), 8 * 100 * 125) == "avif:quality=15"
    assert suited(ddplug.load_dataset("digits")) == "pixels:bits=2"
    assert suited(toy_table()) in ("pixels:bits=4", "pixels:bits=8")


def test_bytes_that_are_left_once_all_images_fit_are_spent_on_how_they_are_stored() -> None:
    data = ddplug.load_dataset("digits")
    few = data.subset(torch.cat([members[: 9 + k] for k, members in enumerate(data.class_indices)]))
    sizes = (700, 1000, 10**6)
    made = [distill(few, "random", nbytes=nbytes, device="cpu") for nbytes in sizes]
    assert [one.provenance["codec"][-1] for one in made] == ["2", "2", "8"]
    assert [len(one) for one in made[1:]] == [90] * 2 and len(made[0]) < 90
    assert all(one.nbytes <= nbytes for one, nbytes in zip(made, sizes, strict=True))
    # what is asked for stays
    assert distill(few, "random", nbytes=2500, codec="pixels:bits=2", device="cpu").provenance["codec"][-1] == "2"
    photos = photographs((6, 5), side=32)
    better = distill(photos, "random", nbytes=5000, device="cpu")
    assert len(better) == 10 and int(better.provenance["codec"].partition("=")[2]) > 25 and better.nbytes <= 5000


@pytest.mark.parametrize(
    ("data", "codec", "nbytes"), [(toy_images((30, 30)), "pixels:bits=4", 600), (photographs(), "avif:quality=20", 900)]
)
def test_baselines_are_held_by_the_codec_of_the_set(data: LabeledData, codec: str, nbytes: int) -> None:
    made = ddplug.distill(data, "random", nbytes=nbytes, codec=codec, device="cpu")
    short = Recipe(epochs=2)
    result = compare(made, data, data, network="mlp", recipe=short, repeats=2, whole=False, device="cpu")
    own, random, *_ = result.rows
    # the set is the first of the two random draws, of which the other may take a little more
    assert 0.8 * own.images_per_class <= random.images_per_class <= own.images_per_class
    assert all(row.nbytes <= own.nbytes and row.fits for row in result.rows)
    assert all(row.bits_per_class == 4 * row.nbytes for row in result.rows)


def test_a_baseline_that_does_not_fit_has_one_image_a_class_and_says_so() -> None:
    data = photographs()
    flat = replace(ddplug.distill(data, Random(1), device="cpu"), levels=None)
    made = replace(flat, inputs=torch.zeros_like(flat.inputs)).compress("pixels:bits=8")
    result = compare(
        made,
        data,
        data,
        network="mlp",
        recipe=Recipe(epochs=1),
        repeats=1,
        whole=False,
        device="cpu",
        baselines=["random"],
    )
    assert (result.rows[1].images_per_class, result.rows[1].fits) == (1, False)
    assert "(more than the set)" in result.table()


def test_many_images_are_trained_on_by_steps_and_few_as_published(digits: LabeledData) -> None:
    many = distill(digits, "random", nbytes=3000, codec="pixels:bits=1", device="cpu")
    few = distill(digits, "random", nbytes=600, codec="pixels:bits=1", device="cpu")
    assert len(many) > 256 >= len(few)
    assert many.recipe == Recipe.by_steps(1500, "affine")
    assert few.recipe == Recipe.paper(digits.augmentation)


@pytest.mark.parametrize(("images", "steps"), [(300, 1500), (2000, 1500), (2001, 4500), (4000, 4500), (4001, 4500)])
def test_many_photographs_are_trained_on_for_more_steps_and_fewer_with_cutmix(images: int, steps: int) -> None:
    pixels = torch.zeros(images, 3, 2, 2)
    made = SyntheticSet(pixels, torch.arange(images) % 2, 2, Identity(), Recipe.paper())
    mixed = 0.5 if images <= 4000 else 0.0
    assert with_recipe(made, "color_crop_flip").recipe == replace(
        Recipe.by_steps(steps, "crop+flip+color"), cutmix=mixed
    )
    assert with_recipe(made, "crop_scale_rotate").recipe == Recipe.by_steps(1500, "affine")


def test_seconds_hold_the_search_for_what_fits(digits: LabeledData) -> None:
    @dataclass(frozen=True)
    class Slow(Random):
        """Takes its time to choose."""

        def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
            time.sleep(0.2)
            return super().init(data, rng)

    made = distill(digits, Slow(), nbytes=1000, codec="pixels:bits=2", device="cpu")
    assert made.provenance["seconds"] >= 0.2
