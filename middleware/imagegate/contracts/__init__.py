"""What a model accepts: contracts, size rules and the changes that a rewrite discloses.

Ground level: data and rules without I/O, which every other package may import.
"""
