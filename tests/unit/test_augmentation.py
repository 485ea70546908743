import torch

from dprobust.augmentation import PADDING, augment
from dprobust.seeds import generator


def images(n=400):
    """Every pixel of a 3 x 6 x 5 image is another number, none of them 0, and the same in every image."""
    return torch.arange(1, 91, dtype=torch.uint8).view(1, 3, 6, 5).expand(n, -1, -1, -1)


def test_flip_mirrors_half_of_the_images():
    x = images()
    flipped = augment(x, ["flip"], generator("a"))
    same, mirrored = (flipped == x).all((1, 2, 3)), (flipped == x.flip(-1)).all((1, 2, 3))
    assert (same ^ mirrored).all() and 160 < mirrored.sum() < 240


def test_flip_of_features_takes_those_of_the_mirror_image():
    x = images()
    pairs = torch.stack([x, x.flip(-1)], 1).flatten(2)
    expected = augment(x, ["flip"], generator("a")).flatten(1)
    assert torch.equal(augment(pairs, ["flip"], generator("a")), expected)


def test_crop_shifts_by_up_to_the_padding_and_fills_with_zeros():
    x = images(2000)
    cropped = augment(x, ["crop"], generator("a"))
    assert cropped.shape == x.shape and cropped.dtype == torch.uint8
    shifts = set()
    for image in cropped:
        rows, columns = (image[0] > 0).any(1), (image[0] > 0).any(0)
        top, left = int(rows.nonzero()[0]), int(columns.nonzero()[0])
        seen = image[:, rows][:, :, columns]
        corner = int(seen[0, 0, 0]) - 1
        dy, dx = top - corner // 5, left - corner % 5
        shifts.add((dy, dx))
        shifted = torch.roll(torch.nn.functional.pad(x[0], (PADDING,) * 4), (dy, dx), (1, 2))
        assert torch.equal(image, shifted[:, PADDING:-PADDING, PADDING:-PADDING])
    assert shifts == {(dy, dx) for dy in range(-4, 5) for dx in range(-4, 5)}


def test_order_of_kinds_and_generator_decide():
    x = images(20)
    both = augment(x, ["flip", "crop"], generator("a"))
    random = generator("a")
    assert torch.equal(both, augment(augment(x, ["flip"], random), ["crop"], random))
    assert not torch.equal(both, augment(x, ["flip", "crop"], generator("b")))
    assert augment(x, [], generator("a")) is x
