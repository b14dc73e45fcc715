from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from selfkd_fairseq.data.datasets import find_dataset
from selfkd_fairseq.data.preparation import prepare
from selfkd_fairseq.data.steps import Settings


def main(argv=None):
    p = argparse.ArgumentParser()
    p.add_argument("dataset")
    p.add_argument("--source")
    p.add_argument("--target")
    p.add_argument("--raw", type=Path)
    p.add_argument("--dest", type=Path)
    p.add_argument("--workers", type=int, default=os.cpu_count())
    a = p.parse_args(argv)
    d = find_dataset(a.dataset)
    s = Settings(d.name, a.source, a.target, d.lowercase, d.bpe_merges)
    path = prepare(d, s, a.raw.resolve(), a.dest.resolve(), a.workers, lambda line: print(line, file=sys.stderr))
    print(path)


if __name__ == "__main__":
    main()
