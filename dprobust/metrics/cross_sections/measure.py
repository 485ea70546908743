"""Decision regions in a plane through each of some test images."""

import torch
from torch import Tensor, nn

from dprobust.crosssection import cross_section
from dprobust.errors import UserError
from dprobust.inference import classes, map_batches
from dprobust.measuring import Images, Measured
from dprobust.metrics.cross_sections.settings import Metric
from dprobust.seeds import generator


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """The plane through each image, cut into R x R points.

    The random direction comes from a stream named by the dataset and the image's place in the test set, so that every
    network and seed gets the same draw.

    Rows: for each image (`sample`, its place in the test set) its label, predicted class, pixels, the coordinates along
    a side (`offset`), the classes in the plane and the distance to the boundary along the normal. Each metric is
    flattened, and equal neighbours are one row, `repeat` times `value`.

    Arrays, N images, R points a side:
        offset: float32 [R], coordinates along both sides, l2 distance.
        plane: uint8 [N, R, R], class at image + offset[i] normal + offset[j] tangent; int16 where there are more than
            256 classes.
        predicted: [N], class of the image, in the same type.
        distance: float32 [N], from the image to the boundary along the normal (DeepFool).
        image, normal, tangent: float32 [N, C, H, W].
    """
    predicted = map_batches(model, lambda x: (classes(model(x)),), 256, images.x)[0]
    measured, sections = Measured(), []

    def add(sample: int, metric: str, values: Tensor) -> None:
        value, repeat = values.double().flatten().unique_consecutive(return_counts=True)
        measured.add_each(metric=[metric] * len(value), sample=[sample] * len(value), repeat=repeat, value=value)

    for i, sample in enumerate(images.index.tolist()):
        stream = generator(images.about["dataset"], "cross_section", sample)
        try:
            section = cross_section(model, images.x[i], settings.half_width, settings.resolution, stream)
        except UserError as error:
            raise UserError(f"test image {sample}: {error}") from None
        add(sample, "label", images.y[i])
        add(sample, "predicted", predicted[i])
        add(sample, "pixel", images.x[i])
        add(sample, "offset", section.offsets)
        add(sample, "class", section.classes)
        add(sample, "distance", section.offsets.new_tensor(section.distance))
        sections.append(section)
    measured.keep("offset", sections[0].offsets)
    measured.keep("plane", torch.stack([section.classes for section in sections]))
    measured.keep("predicted", predicted)
    measured.keep("distance", torch.tensor([section.distance for section in sections], dtype=torch.float32))
    measured.keep("image", images.x)
    measured.keep("normal", torch.stack([section.normal for section in sections]))
    measured.keep("tangent", torch.stack([section.tangent for section in sections]))
    return measured
