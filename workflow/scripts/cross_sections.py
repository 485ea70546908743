"""Decision regions in a plane through each of some test images, and the images.

Grids are stored row by row, a row of the record for each stretch of equal values: `repeat` times `value`.
"""

from _evaluation import evaluation

with evaluation(snakemake) as e:
    from dprobust import inference, seeds
    from dprobust.crosssection import cross_section
    from dprobust.errors import UserError

    def add(sample, metric, values):
        value, repeat = values.double().flatten().unique_consecutive(return_counts=True)
        e.add_each(metric=[metric] * len(value), sample=[sample] * len(value), repeat=repeat, value=value)

    s = e.settings
    for sample in s["samples"]:
        # The generator knows neither run nor seed: every model gets the same draw for the tangent.
        generator = seeds.generator(e.about["dataset"], "cross_section", sample)
        try:
            section = cross_section(e.model, e.x[sample], s["half_width"], s["resolution"], generator)
        except UserError as error:
            raise UserError(f"test image {sample}: {error}") from None
        add(sample, "label", e.y[sample])
        add(sample, "predicted", inference.predict(e.model, e.x[sample : sample + 1]))
        add(sample, "pixel", e.x[sample])
        add(sample, "offset", section.offsets)
        add(sample, "class", section.classes)
        add(sample, "distance", section.offsets.new_tensor(section.distance))
