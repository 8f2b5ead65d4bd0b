"""Export of a trained model to the formats of other programs: ONNX graphs, and a folder for a model hub."""
