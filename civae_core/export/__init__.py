"""A trained model in the formats of other programs: ONNX graphs, and a folder for a model hub."""
