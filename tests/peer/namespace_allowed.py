"""A pytest plugin: what torch before 2.6 did, and no more than fairseq's tests of checkpoints need.

Since then ``torch.load`` refuses the ``argparse.Namespace`` in every fairseq checkpoint, so that fairseq alone fails at
whatever loads one. With this class allowed, and nothing of the plugin, there is something to compare with.
"""

import argparse

import torch

torch.serialization.add_safe_globals([argparse.Namespace])
