"""TensorRT engines: one path for TensorRT 8.6 to 11.4 and TensorRT-RTX.

What ran where is in
docs/hardware-tested.md.
"""
