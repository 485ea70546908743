"""The verdicts on claims."""
