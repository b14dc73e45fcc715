"""From raw parallel text to what ``fairseq-train`` takes: datasets, download, text pipeline, binarisation.

:mod:`.datasets` is the list of known datasets, :mod:`.preparation` the order of the steps. Nothing here needs
fairseq or torch: the last step runs ``fairseq-preprocess`` as a process of its own.
"""
