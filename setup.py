"""Packaging of selfkd_fairseq. Ranges live here; the exact tested set is in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# fairseq 0.12.2 does not import on Python 3.11 and later; the other two are the same code, mended, one with wheels. An
# extra, because all of them write the folder fairseq/: nobody who has one shall get another on top of it.
FAIRSEQ = [
    'fairseq==0.12.2; python_version < "3.11"',
    've-fairseq>=0.12.3,<0.13; python_version >= "3.11" and python_version < "3.13"'
    ' and sys_platform == "linux" and platform_machine == "x86_64"',
    'fairseq-fixed>=0.12.3.1,<0.13; python_version >= "3.13"'
    ' or python_version >= "3.11" and (sys_platform != "linux" or platform_machine != "x86_64")',
]


def read_version() -> str:
    """The version string, read as text so that packaging never imports torch."""
    text = (ROOT / "selfkd_fairseq" / "version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


setup(
    name="selfkd_fairseq",
    version=read_version(),
    description="Self-knowledge distillation for neural machine translation and language modelling in fairseq",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.8",
    packages=find_packages(include=["selfkd_fairseq", "selfkd_fairseq.*"]),
    install_requires=[
        "torch>=2.4",  # older ones cannot load a fairseq checkpoint in the safe mode
        "numpy",
        "scipy>=1.10",  # fairseq for Python 3.11 brings it
        "sacremoses>=0.1",  # older ones cannot normalise punctuation as Moses does
        "subword-nmt>=0.3.8",
        "sacrebleu>=2.1",
        "tqdm>=4.57",
        "matplotlib>=3.5",
    ],
    extras_require={"fairseq": FAIRSEQ, "test": ["pytest", "hypothesis", "tensorboardX", "ctranslate2>=4"]},
    entry_points={
        "console_scripts": [
            "selfkd-average-checkpoints=selfkd_fairseq.cli.average_checkpoints:main",
            "selfkd-benchmark=selfkd_fairseq.cli.benchmark:main",
            "selfkd-compare=selfkd_fairseq.cli.compare:main",
            "selfkd-evaluate=selfkd_fairseq.cli.evaluate:main",
            "selfkd-neighbours=selfkd_fairseq.cli.neighbours:main",
            "selfkd-prepare=selfkd_fairseq.cli.prepare:main",
            "selfkd-score=selfkd_fairseq.cli.score:main",
        ]
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
    ],
)
