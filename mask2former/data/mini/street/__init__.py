"""A drawn street: picture and annotation."""
