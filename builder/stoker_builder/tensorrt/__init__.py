"""TensorRT engines: one path for TensorRT 8.6 to 11.4 and TensorRT-RTX. See docs/tensorrt.md."""
