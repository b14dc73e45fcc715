"""Everything that changes how fairseq itself behaves, for those who ask for it.

``SELFKD_HARDENED=1`` in the environment asks for it in each process that fairseq starts, :func:`install` in this one.
The console commands of this package ask for themselves. Each module makes one of the changes:

- :mod:`.strict_loading`: checkpoints are read in torch's safe mode, and the settings that they hold are checked;
- :mod:`.evaluated_settings`: what fairseq gives to ``eval`` must be a literal or nearly one;
- :mod:`.whole_copies`: a copy of a checkpoint gets its name when it is whole;
- :mod:`.checked_inputs`: checkpoints that do not fit and data that are cut short are named when they are opened;
- :mod:`.one_line_errors`: the errors of all these are one line in fairseq's own commands;
- :mod:`.nan_search`: fairseq's search for the tensor that was not finite first finds it in Transformers, too.

Each calls what was there before, with the same arguments, and leaves to it all that it does not know.
"""

from . import checked_inputs, evaluated_settings, nan_search, one_line_errors, strict_loading, whole_copies
from .stand_ins import put_back

__all__ = ["install", "remove"]


def install() -> None:
    """Harden the fairseq of this process. A second call does so for the modules of fairseq loaded meanwhile."""
    strict_loading.load_checkpoints_strictly()
    evaluated_settings.evaluate_literals_alone()
    whole_copies.copy_checkpoints_whole()
    checked_inputs.check_inputs()
    one_line_errors.print_in_one_line()
    nan_search.watch_gradients_at_tensors()


def remove() -> None:
    """Take it all back: fairseq is as it was."""
    put_back()
