"""Quantities that claims are about: a module each, found by its name (`dprobust.quantity`)."""
