"""Language modelling: from a published text, word by word as it is, to a binarised one."""
