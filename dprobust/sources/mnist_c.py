"""Where the files of MNIST-C are got; what they hold is fixed by checksums (`dprobust.materials.mnist_c.make`)."""

MIRRORS = ("https://zenodo.org/records/3239543/files/",)
"""Of the official archives."""
FROST_MIRRORS = ("pypi:imagecorruptions==1.1.2",)
"""Of the frost textures: the wheel of another benchmark has them unchanged."""
