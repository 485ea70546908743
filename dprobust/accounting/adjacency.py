"""When two training sets count as neighbours, and for which neighbours a sampler has a bound. Imports nothing."""

ADD_OR_REMOVE = "add or remove one"
REPLACE = "replace one"
ZERO_OUT = "zero out one"
NONE = "none"

PHRASES = {
    ADD_OR_REMOVE: "adding or removing one example",
    REPLACE: "replacing one example by another",
    ZERO_OUT: "the gradient of one example becoming zero",
}
"""Adjacency -> what may differ between neighbours, as text."""

ADJACENCIES = {
    "poisson": (ADD_OR_REMOVE, REPLACE),
    "truncated_poisson": (ADD_OR_REMOVE, REPLACE),
    "balls_in_bins": (ADD_OR_REMOVE,),
    "shuffle": (REPLACE, ZERO_OUT),
}
"""Sampler -> the adjacencies that it has a bound for, first the one that heads the privacy table and stands in legends.

Adding or removing one example is the usual notion, and where a sampler draws each example by itself it is covered.
Batches of fixed size need the number of examples to be fixed: whoever is added displaces another. Of the two bounds
that hold for them, replacing one example is the one about data sets that can exist, and the larger one; an example
whose gradient is zero is a device of the proof, and a heading by it would flatter the sampler.
"""
