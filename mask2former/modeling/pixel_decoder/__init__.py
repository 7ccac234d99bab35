"""Pixel decoders: from the backbone's features to a pixel feature and a pyramid for the queries."""
