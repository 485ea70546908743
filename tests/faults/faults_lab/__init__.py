"""An extension for the small study of the fault tests: a material, and a metric that needs it."""
