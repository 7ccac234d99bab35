"""The mathematics of the model: plain values in, tensors out, no configuration."""
