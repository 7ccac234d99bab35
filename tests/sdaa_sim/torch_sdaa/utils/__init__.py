"""Modules of torch_sdaa.utils that are simulated: cuda_migrate."""
