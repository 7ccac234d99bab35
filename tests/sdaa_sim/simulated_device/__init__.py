"""A made-up accelerator for torch on PrivateUse1, computed on the CPU. See ../README.md.

A process can have one: torch's third-party backend can be renamed once.
"""
