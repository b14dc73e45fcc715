"""Forms of the method that the tests run over: a name, and the options that make it, but for sizes and alpha.

Every support, similarity, teacher, normalisation and control is in one of them: ``test_forms.py``.
"""

from selfkd_fairseq.core import SelfKDOptions

SELF, OTHERS, WITHIN = {"teacher": "self"}, {"gate": "others"}, {"normalise": "support"}
FULL, NEAREST, RANDOM = ({"support": support} for support in ("full", "nearest", "random"))
GAUSSIAN, COSINE = ({"similarity": similarity} for similarity in ("gaussian", "cosine"))
UNIFORM, SHUFFLED, SHUFFLED_ROWS = ({"control": control} for control in ("uniform", "shuffled", "shuffled_rows"))


def student(temperature):
    return {"student_temperature": temperature}


def of_embedding(weight):
    return {"embedding_weight": weight}


BY_DEFAULT = {**FULL, **COSINE, **SELF, "min_target_prob": 0.0}  # of the criterion self_kd
FORMS = {
    # one support after the other, all else by default
    "predicted": {},
    "nearest": NEAREST,
    "full": FULL,
    "random": RANDOM,
    # similarities
    "predicted, gaussian": GAUSSIAN,
    "nearest, cosine": {**NEAREST, **COSINE},
    "full, gaussian": {**FULL, **GAUSSIAN},
    "full, cosine": {**FULL, **COSINE},
    # the student's temperature
    "full, T 2": {**FULL, **student(2.0)},
    "full, cosine, T 0.5": {**FULL, **COSINE, **student(0.5)},
    # within the support
    "predicted, within": WITHIN,
    "predicted, gaussian, within, T 2": {**GAUSSIAN, **WITHIN, **student(2.0)},
    "random, cosine, within, T 3": {**RANDOM, **COSINE, **WITHIN, **student(3.0)},
    # the teacher self
    "predicted, self": SELF,
    "predicted, self alone, within": {**SELF, **of_embedding(0.0), **WITHIN},
    "nearest, cosine, self, within, T 2": {**NEAREST, **COSINE, **SELF, **of_embedding(0.5), **WITHIN, **student(2.0)},
    "full, self, T 2": {**FULL, **SELF, **of_embedding(2.0), **student(2.0)},
    "full, cosine, self": {**FULL, **COSINE, **SELF},
    "full, cosine, self, of others": {**FULL, **COSINE, **SELF, **OTHERS},
    "full, self, of others, T 2, shuffled": {**FULL, **SELF, **OTHERS, **SHUFFLED, **of_embedding(2.0), **student(2.0)},
    "predicted, self, of others": {**SELF, **OTHERS},
    "nearest, self, of others, shuffled rows, within": {**NEAREST, **SELF, **OTHERS, **SHUFFLED_ROWS, **WITHIN},
    "full, self alone": {**FULL, **SELF, **of_embedding(0.0)},
    # controls
    "predicted, uniform": UNIFORM,
    "full, self, uniform, T 2": {**FULL, **SELF, **UNIFORM, **student(2.0)},
    "predicted, shuffled": SHUFFLED,
    "nearest, self, shuffled, within": {**NEAREST, **SELF, **SHUFFLED, **WITHIN},
    "full, cosine, self, shuffled, T 2": {**FULL, **COSINE, **SELF, **SHUFFLED, **student(2.0)},
    "full, shuffled": {**FULL, **SHUFFLED},
    "predicted, cosine, shuffled rows": {**COSINE, **SHUFFLED_ROWS},
    "random, gaussian, self, shuffled rows, within": {**RANDOM, **GAUSSIAN, **SELF, **SHUFFLED_ROWS, **WITHIN},
    "full, gaussian, shuffled rows": {**FULL, **GAUSSIAN, **SHUFFLED_ROWS},
}
# Where every form would be a matter of patience: each kind of option still, and every support.
FEW = {
    name: FORMS[name]
    for name in (
        "predicted", "nearest", "full", "random", "full, cosine, T 0.5", "predicted, gaussian, within, T 2",
        "nearest, cosine, self, within, T 2", "full, self, T 2", "full, cosine, self, of others", "predicted, uniform",
        "predicted, shuffled", "full, gaussian, shuffled rows",
    )
}  # fmt: skip


def flags(options):
    """Of the command line, with those that would follow from the teacher, which has no dropout."""
    core = SelfKDOptions()._asdict()
    core = {name: core[name] for name in ("teacher", "support", "similarity", "min_target_prob")}
    options = {**core, "teacher_mode": "eval", **options}
    return [word for name, value in options.items() for word in (f"--skd-{name.replace('_', '-')}", str(value))]


def reads_teacher(options):
    """Whether the soft targets of a form read what the model says without dropout."""
    return options.get("teacher") == "self" and options.get("control") != "uniform"
