"""fairseq's checkpoints as files: what they may hold, what is wrong with a damaged one, their mean."""
