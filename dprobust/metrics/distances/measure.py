"""Distance of each image to the decision boundary: Eq. 4 in both norms, DeepFool on the first images of the draw."""

import torch
from torch import nn

from dprobust.distances import ORDER, boundary_distances, deepfool
from dprobust.inference import compact
from dprobust.measuring import Images, Measured
from dprobust.metrics.distances.settings import Metric


def measure(model: nn.Module, images: Images, settings: Metric) -> Measured:
    """Distances in units of the full pixel range, a row an image.

    Columns: index, the place in the test set; l2 and linf, Eq. 4's absolute distances; l2_signed and linf_signed,
    negative where the image is misclassified; correct; deepfool_l2 and deepfool_linf, 0 where the image is
    misclassified, "inf" where DeepFool finds no boundary, empty where it was not run. Eq. 4 is "inf" where the logits
    do not depend on the image. Nothing is left out: `infinite` and `deepfool_infinite` count what is infinite.

    Arrays, N images, n of them with DeepFool:
        norm: str [2], "l2" and "linf": names of the axis.
        distance, signed: float32 [2, N], Eq. 4.
        nearest: uint8 [2, N], the class of Eq. 4's minimum; int16 where there are more than 256 classes.
        predicted: [N], class of the image, in the same type. correct: bool [N], no other logit is larger than the true.
        infinite: int64 [2], images at infinite distance.
        deepfool_index: int64 [n], places in the test set. This and what follows is only there if DeepFool was run.
        deepfool_distance: float32 [2, n], to the boundary found by bisecting DeepFool's last step.
        deepfool_landing: float32 [2, n], to where that step ends, which is past the boundary.
        deepfool_iterations: uint8 [2, n], linearisations. deepfool_fooled: bool [2, n].
        deepfool_class: [2, n], the class beyond the boundary, in the type of `predicted`.
        deepfool_infinite: int64 [2], images that DeepFool finds no boundary for.
    """
    linear = boundary_distances(model, images.x, images.y)
    first = images.first(settings.deepfool_images) if settings.deepfool else images.order[:0]
    found = {norm: deepfool(model, images.x[first], images.y[first], norm) for norm in ORDER if len(first)}
    columns = {name: getattr(linear, name) for name in ("l2", "linf", "l2_signed", "linf_signed", "correct")}
    for norm in ORDER:
        columns[f"deepfool_{norm}"] = torch.full((len(images.x),), torch.nan)
        if found:
            columns[f"deepfool_{norm}"][first] = found[norm].distance
    measured = Measured()
    measured.add_each(index=images.index, **columns)

    def keep(name: str, values: list[torch.Tensor]) -> None:
        measured.keep(name, torch.stack(values))

    measured.keep("norm", list(ORDER))
    keep("distance", [linear.l2, linear.linf])
    keep("signed", [linear.l2_signed, linear.linf_signed])
    keep("nearest", [linear.l2_class, linear.linf_class])
    measured.keep("predicted", linear.predicted)
    measured.keep("correct", linear.correct)
    keep("infinite", [linear.l2.isinf().sum(), linear.linf.isinf().sum()])
    if found:
        outcomes = list(found.values())
        measured.keep("deepfool_index", images.index[first])
        keep("deepfool_distance", [outcome.distance for outcome in outcomes])
        keep("deepfool_landing", [outcome.landing for outcome in outcomes])
        keep("deepfool_iterations", [compact(outcome.iterations, 256) for outcome in outcomes])
        keep("deepfool_fooled", [outcome.fooled for outcome in outcomes])
        keep("deepfool_class", [outcome.predicted for outcome in outcomes])
        keep("deepfool_infinite", [outcome.distance.isinf().sum() for outcome in outcomes])
    return measured
