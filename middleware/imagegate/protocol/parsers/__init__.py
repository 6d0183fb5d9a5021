"""Push parsers and encoders for bodies that are too large to hold. No I/O."""
