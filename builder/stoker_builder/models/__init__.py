"""Taking a model in: whatever the user names becomes one ONNX file with fixed shapes."""
