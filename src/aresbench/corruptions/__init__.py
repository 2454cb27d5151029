"""Corruptions: named changes of an image with a dose; draws apart from pure maths."""
