"""Heads: what a meta-architecture puts on its backbone."""
