"""The winner becomes what others load: a Hugging Face folder, ONNX, a model card."""
