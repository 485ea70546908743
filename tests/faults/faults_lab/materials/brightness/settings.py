"""What can be made. Needs no torch."""

ITEMS = ("even",)
MINUTES = 1


def inputs(item: str) -> dict[str, str]:
    """Nothing but the item's name."""
    return {}
