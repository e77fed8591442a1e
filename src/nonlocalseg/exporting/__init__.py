"""Models as files of other runtimes, ONNX, OpenVINO and torch.export: written, checked, and read as models again."""
