"""What objects say of themselves: one line without numbers, and pictures for a notebook that are right and safe."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import ddplug
from ddplug.data.preprocess import Identity, Zca, fit
from ddplug.errors import DataError, OptionError
from ddplug.synthetic.export import to_png
from ddplug.synthetic.learned import LearnedTraining


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def numbers(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def small(names: tuple[str, ...] = ("a", "b")) -> ddplug.SyntheticSet:
    inputs = torch.linspace(0, 1, 4 * 9).view(4, 1, 3, 3)
    return ddplug.SyntheticSet(inputs, torch.tensor([1, 0, 1, 1]), 2, Identity(), class_names=names)


def test_a_notebook_shows_the_very_images_a_class_a_row() -> None:
    made = small()
    shown = pictures(made._repr_html_())
    wanted = (made.inputs[:, 0] * 255).round().byte().numpy()
    assert [row.shape[0] for row in shown] == [3, 3]
    assert shown[0][:, :3].tolist() == wanted[1].tolist()
    assert shown[1][:, 4:7].tolist() == wanted[2].tolist()


@pytest.mark.parametrize("low,high", [(0.0, 255.0), (-1.0, 1.0)])
def test_real_images_of_any_range_are_shown_from_black_to_white(low: float, high: float) -> None:
    images = torch.linspace(low, high, 2 * 3 * 16).view(2, 3, 4, 4)
    data = ddplug.from_arrays(images, [0, 1])
    first, last = pictures(data._repr_html_())
    assert (first.min(), last.max(), first.ndim) == (0, 255, 3)


def test_names_from_a_hostile_file_are_escaped_and_nothing_is_fetched() -> None:
    bad = '"><script>alert(1)</script>'
    page = small((bad, "b"))._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2
    assert not re.search(r"https?:", page)


def test_what_is_no_image_is_one_line() -> None:
    table = ddplug.from_arrays(numbers(6, 5), [0, 1] * 3)
    assert table._repr_html_() == f"<div><div>{repr(table).replace(chr(39), '&#x27;')}</div></div>"
    with pytest.raises(DataError, match=r"\(5,\) are not images"):
        table.show()
    with pytest.raises(DataError, match=r"\(5,\) are not images"):
        ddplug.distill(table, "random", images_per_class=1, device="cpu").show()


def test_many_classes_are_cut_off_and_that_is_said() -> None:
    data = ddplug.from_arrays(numbers(30, 1, 4, 4), list(range(30)))
    page = data._repr_html_()
    assert len(pictures(page)) == 20
    assert "20 of 30 classes shown" in page


def test_show_gives_the_picture_that_export_writes(tmp_path: object) -> None:
    made = small()
    to_png(made, f"{tmp_path}/made.png")
    with Image.open(f"{tmp_path}/made.png") as written:
        assert made.show().tobytes() == written.tobytes()
    with pytest.raises(OptionError, match="per_row is 0"):
        ddplug.load_dataset("digits").show(per_row=0)


def test_no_object_prints_numbers_by_the_page() -> None:
    made = ddplug.load("mnist-8kB")
    whitened = fit("zca", numbers(40, 1, 8, 8))
    assert isinstance(whitened, Zca)
    said = {
        "SyntheticSet(530 x (1, 28, 28), 10 classes, hard labels, 7,810 bytes, pixels:bits=1, by 'random')": made,
        "Stored('pixels:bits=1', 530 x (1, 28, 28), 7,800 bytes)": made.stored,
        "Standardize(mean=[0.1307], std=[0.3081])": made.preprocess,
        "Zca(mean=<64>, matrix=<64 x 64>, unmatrix=<64 x 64>)": whitened,
        "LearnedTraining('mlp', seed=None, 500 steps)": LearnedTraining("mlp", None, "", ((0,),), (0.1,) * 500),
    }
    assert {repr(value): value for value in said.values()} == said
