"""Speed and memory against fairseq's own criterions and against plain PyTorch: behind ``selfkd-benchmark``."""
