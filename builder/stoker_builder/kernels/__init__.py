"""Whose kernels answer: this machine's, or those of the devices of a target."""
