"""Small drawn streets in the layouts of the datasets, for machines without them, one a file."""
