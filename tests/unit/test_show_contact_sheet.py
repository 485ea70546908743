"""The contact sheet: the images of the study's draw, each under the next corruption."""

import json

import numpy as np
import pytest
from pydantic_core import PydanticCustomError

from dprobust.arrays import draw, save
from dprobust.corruptions import NAMES
from dprobust.displays.contact_sheet.display import Display, check, needs
from dprobust.displays.contact_sheet.show import show
from dprobust.showing import Given

N = 40


@pytest.fixture
def files(tmp_path):
    """Image i is i everywhere; under corruption k it is 100 + k + i."""
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None], (N, 28, 28))
    save(tmp_path / "test.npz", images, np.zeros(N, np.int64), 10)
    np.savez(tmp_path / "sets.npz", **{name: images + np.uint8(100 + k) for k, name in enumerate(NAMES)})
    origins = dict.fromkeys(NAMES, "zenodo") | {"frost": "generated, seed 0"}
    (tmp_path / "sets.json").write_text(json.dumps(origins), encoding="utf-8")
    return {name: tmp_path / f"{name}.npz" for name in ("test", "sets")}


def test_tiles_are_the_images_of_the_draw_in_turn(files):
    figure, data = show(Given(files=files, note="demo"), Display(shows="contact_sheet"))
    index = sorted(draw(N, 8, "mnist"))
    assert index != list(range(8))
    assert data["corruption"].tolist() == ["identity", *NAMES]
    assert data["index"].tolist() == [index[k % 8] for k in range(32)]
    origins = data.set_index("corruption")["origin"]
    assert origins["identity"] == "mnist" and origins["frost"] == "generated, seed 0" and origins["fog"] == "zenodo"
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == 32
    for k, (pixels, i) in enumerate(zip(shown, data["index"], strict=True)):
        assert np.unique(pixels) == (i if k == 0 else 100 + k - 1 + i)
    note = " ".join(figure.get_supxlabel().split())
    assert note == "sets: generated, seed 0, zenodo; in bold the 15 of the main archive; demo"
    assert sum(axes.title.get_fontweight() == "bold" for axes in figure.axes) == 15


def test_settings():
    assert needs(Display(shows="contact_sheet", source="generate"), "mnist") == {
        "test": "data/mnist/test.npz",
        "sets": "data/mnist_c/generate.npz",
    }
    check(Display(shows="contact_sheet"), [], {})
    with pytest.raises(PydanticCustomError, match="dataset: cifar10 has no contact sheet"):
        check(Display(shows="contact_sheet", dataset="cifar10"), [], {})
