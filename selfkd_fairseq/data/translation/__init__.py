"""Translation: from sentence pairs to tokenised, BPE-segmented, binarised pairs."""
