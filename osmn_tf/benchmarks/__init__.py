"""Everything that measures time, or a curve over it."""
