"""What can be made of MNIST-C, and of what. Needs no torch."""

ITEMS = ("pessimal", "auto", "zenodo", "generate")
"""pessimal: the pattern of pessimal noise; the others: the test sets, by where they come from."""
MINUTES = 60
"""That making one may take."""
MEMORY = 3000
"""That making one may take, in MB."""


def inputs(item: str) -> dict[str, str]:
    """The files that an item is made of: key -> path."""
    train, test = {"train": "data/mnist/train.npz"}, {"test": "data/mnist/test.npz"}
    pattern = {"pattern": "data/mnist_c/pessimal.npz"}
    return {"pessimal": train | test, "zenodo": test, "auto": test | pattern, "generate": test | pattern}[item]
