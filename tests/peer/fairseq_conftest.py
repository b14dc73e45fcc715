"""For fairseq's tests, with and without the plugin: what fairseq takes from an older numpy.

fairseq's language modelling reads ``numpy.compat.long``, Python's int, which numpy 2 no longer has. Without it no
test of a language model gets to its end.
"""

from types import SimpleNamespace

import numpy

if not hasattr(numpy, "compat"):
    numpy.compat = SimpleNamespace(long=int)
