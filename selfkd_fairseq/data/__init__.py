"""From raw text to what ``fairseq-train`` takes: datasets, download, text steps, binarisation.

:mod:`.datasets` is the list of known datasets. Each belongs to a kind (:mod:`.translation`, :mod:`.language_model`),
which says what :mod:`.kind` asks for: its settings, its raw files and its steps. :mod:`.preparation` is the order of
work, the same for every kind. Nothing here needs fairseq or torch: the last step runs ``fairseq-preprocess`` as a
process of its own.
"""
