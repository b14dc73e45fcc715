"""Speed and memory of the loss against fairseq's own criterions: behind the command ``selfkd-benchmark``."""
