"""Small objects in large pictures: overlapping tiles through one model, merged at their borders."""
