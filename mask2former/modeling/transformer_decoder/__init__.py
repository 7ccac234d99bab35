"""Transformer decoders: from features and learned queries to classes and masks."""
