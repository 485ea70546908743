"""Accountants: upper bounds on epsilon, a module a family of samplers. `dprobust.privacy` is how they are called."""
