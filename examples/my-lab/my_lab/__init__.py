"""An extension: metrics, models and reference values beside those of dprobust, found by the folders they lie in."""
