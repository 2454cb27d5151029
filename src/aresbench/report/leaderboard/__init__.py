"""A ranking as a static site: measured results of any number of stores beside what others have published."""
