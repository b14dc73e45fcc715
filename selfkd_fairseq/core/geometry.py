"""The geometry of the output embedding matrix W (V, d): measures of two rows, similarities, and the unit of distance.

    D_tk  = || w_t - w_k ||_2                                         distance
    C_tk  = cos(w_t - w, w_k - w), w the mean row; C_tt = 1           cosine

A similarity turns a measure and the temperature tau' into the score of a word, of which soft targets are the softmax.
Equations: ``docs/method.md``.

To add one: a function in :data:`SIMILARITIES`; for a new measure, a subclass of :class:`Measure`. The reference and the
fused loss read both from here. ``CONTRIBUTING.md`` names what goes with it.
"""

from typing import Callable, Dict, NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import functional

from .arguments import at_least_float32
from .half_products import product, summed_in_float32

__all__ = [
    "SIMILARITIES",
    "TEMPERATURE_SCALES",
    "Measure",
    "Products",
    "Similarity",
    "centred",
    "rms_distance",
]

TEMPERATURE_SCALES = ("relative", "absolute")


def centred(weight: Tensor) -> Tensor:
    """Rows less their mean: distances stay, and their products do not cancel.

    Args:
        weight: (V, d), any float dtype; no gradient flows.

    Returns:
        (V, d), float32 or better.
    """
    weight = weight.detach()
    return weight - weight.mean(dim=0, dtype=at_least_float32(weight.dtype))


def rms_distance(weight: Tensor) -> Tensor:
    """Root mean square distance of two rows of W drawn independently: ``sqrt(2 (mean ||w||^2 - ||mean w||^2))``.

    Computed from the rows less their mean, so that nothing cancels when the mean is large.

    Args:
        weight: (V, d), any float dtype; no gradient flows.

    Returns:
        () float32 (float64 for a float64 ``weight``), at least 0.
    """
    return _rms_distance(centred(weight))


def _rms_distance(centred_rows: Tensor) -> Tensor:
    # Row by row: over all V d numbers at once, vector_norm on the CPU was off by 6e-4 (V = 32,000, d = 512).
    norms: Tensor = torch.linalg.vector_norm(centred_rows, dim=1)
    return (2.0 * norms.pow(2).mean()).sqrt()


class Products(NamedTuple):
    """W made ready for the measures of any words to all words by one matrix product.

    Attributes:
        rows: (V, d), float32 or better, or of half precision where products of those are summed in float32.
        square_norms: (V,) of the rows; None where the measure does not need them.
        unit: () of the measure, in which the rows are given; None where it has none.
        rms: () :func:`rms_distance` of W, of rows as given; None where the measure has no unit.
    """

    rows: Tensor
    square_norms: Optional[Tensor] = None
    unit: Optional[Tensor] = None
    rms: Optional[Tensor] = None


class Measure:
    """How two rows of W lie to each other. No method lets a gradient flow; all results are float32 or better.

    Attributes:
        name: ``skd_`` and this name is what is logged.
        of_itself: the measure of a row and itself.
        has_unit: whether it grows with W, so that the temperature scale ``relative`` means something.
    """

    name: str
    of_itself: float
    has_unit: bool

    def of_support(self, weight: Tensor, indices: Tensor) -> Tensor:
        """Measures of the words of supports to their targets.

        Args:
            weight: (V, d), any float dtype.
            indices: (N, K) int64 in [0, V); column 0 is the target.

        Returns:
            (N, K).
        """
        return self.of_rows(weight.detach()[indices], self.centre(weight))

    def centre(self, weight: Tensor) -> Optional[Tensor]:
        """What :meth:`of_rows` has to know of all of W.

        Args:
            weight: (V, d), any float dtype.

        Returns:
            (d,), the mean row, float32 or better; None where it is not needed.
        """
        return None

    def of_rows(self, rows: Tensor, centre: Optional[Tensor]) -> Tensor:
        """Measures of rows of W to the first of them.

        Args:
            rows: (N, K, d), any float dtype; the first of each token is its target's.
            centre: (d,) of :meth:`centre`, or None.

        Returns:
            (N, K).
        """
        raise NotImplementedError

    def to_every_word(self, weight: Tensor, words: Tensor) -> Tensor:
        """Measures of some words to all words, in the most exact way.

        Args:
            weight: (V, d), any float dtype.
            words: (U,) int64 in [0, V).

        Returns:
            (U, V); a word's own column is a measure like any other, near ``of_itself``.
        """
        raise NotImplementedError

    def products(self, weight: Tensor, dtype: torch.dtype) -> Products:
        """Make W ready for :meth:`by_products`.

        Args:
            weight: (V, d), any float dtype.
            dtype: of the result, float32 or float64.

        Returns:
            :class:`Products`.
        """
        raise NotImplementedError

    def of_dots(self, dots: Tensor, products: Products, words: Tensor) -> Tensor:
        """Measures of some words to all words from the products of the rows.

        Args:
            dots: (U, V) products of the rows of ``words`` with all rows of ``products``, float32 or better.
            products: of :meth:`products`.
            words: (U,) int64 in [0, V).

        Returns:
            (U, V).
        """
        raise NotImplementedError

    def by_products(self, products: Products, words: Tensor, out: Tensor) -> Tensor:
        """As :meth:`to_every_word` by one matrix product, in place: few passes, no new memory.

        Args:
            products: of :meth:`products`.
            words: (U,) int64 in [0, V).
            out: (U, V) in the dtype of the products; overwritten.

        Returns:
            ``out``, (U, V).
        """
        raise NotImplementedError


def _stays_half(weight: Tensor) -> bool:
    """Whether W has no more than half precision, and products of its rows lose none."""
    return weight.dtype != at_least_float32(weight.dtype) and summed_in_float32(weight)


def _halved(weight: Tensor, centre: Tensor) -> Tensor:
    """Half of each row of W less ``centre``, in its dtype, with no larger copy; no difference of float16 overflows.

    float16 rounds numbers below 1e-4 once more.
    """
    return torch.add(-0.5 * centre, weight, alpha=0.5, out=torch.empty_like(weight))


class _Distance(Measure):
    name, of_itself, has_unit = "distance", 0.0, True

    def of_rows(self, rows: Tensor, centre: Optional[Tensor]) -> Tensor:
        rows = rows.to(at_least_float32(rows.dtype))
        distances: Tensor = torch.linalg.vector_norm(rows - rows[:, :1], dim=2)
        return distances

    def to_every_word(self, weight: Tensor, words: Tensor) -> Tensor:
        weight = weight.detach().to(at_least_float32(weight.dtype))
        # Differences, not products: slower and free of cancellation, as a reference should be.
        return torch.cdist(weight[words], weight, compute_mode="donot_use_mm_for_euclid_dist")

    def products(self, weight: Tensor, dtype: torch.dtype) -> Products:
        if _stays_half(weight):
            # Distances stay whatever is taken from all rows: here nothing, so that no bit of W is lost, but in columns
            # of small spread beside their mean, whose squares would cancel, the mean as the dtype of W has it.
            weight = weight.detach()
            mean, norms = weight.mean(dim=0, dtype=dtype), torch.linalg.vector_norm(weight, dim=0, dtype=dtype)
            centre = mean.to(weight.dtype).to(dtype) * (mean.abs() > 0.9 * weight.size(0) ** -0.5 * norms)
            rows = _halved(weight, centre)
            square_norms = torch.linalg.vector_norm(rows, dim=1, dtype=dtype).pow(2)
            variance = square_norms.mean() - (0.5 * (mean - centre)).pow(2).sum()
            rms = 2.0 * (2.0 * variance).clamp_min(0.0).sqrt()
            return Products(rows, square_norms, torch.full_like(rms, 2.0), rms)
        # In units of the RMS distance, so that no square overflows.
        rows = centred(weight)
        rms = _rms_distance(rows)
        unit = rms.clamp_min(torch.finfo(dtype).tiny)
        rows = rows.div_(unit).to(dtype)
        return Products(rows, torch.linalg.vector_norm(rows, dim=1).pow(2), unit.to(dtype), rms)

    def of_dots(self, dots: Tensor, products: Products, words: Tensor) -> Tensor:
        _, square_norms, unit, _ = products
        assert square_norms is not None and unit is not None
        squares = square_norms[words].unsqueeze(1) + square_norms - 2.0 * dots
        return squares.clamp_min(0.0).sqrt() * unit

    def by_products(self, products: Products, words: Tensor, out: Tensor) -> Tensor:
        rows, square_norms, unit, _ = products
        assert square_norms is not None and unit is not None
        product(out, rows[words], rows.t(), square_norms, alpha=-2.0)
        return out.add_(square_norms[words].unsqueeze(1)).clamp_min_(0.0).sqrt_().mul_(unit)


class _Cosine(Measure):
    name, of_itself, has_unit = "cosine", 1.0, False

    def centre(self, weight: Tensor) -> Optional[Tensor]:
        return weight.detach().mean(dim=0, dtype=at_least_float32(weight.dtype))

    def of_rows(self, rows: Tensor, centre: Optional[Tensor]) -> Tensor:
        assert centre is not None
        rows = functional.normalize(rows.to(at_least_float32(rows.dtype)) - centre, dim=2)
        cosines = torch.bmm(rows, rows[:, 0].unsqueeze(2)).squeeze(2)
        cosines[:, 0] = self.of_itself
        return cosines

    def to_every_word(self, weight: Tensor, words: Tensor) -> Tensor:
        rows = functional.normalize(centred(weight), dim=1)
        return rows[words] @ rows.t()

    def products(self, weight: Tensor, dtype: torch.dtype) -> Products:
        if _stays_half(weight):
            weight = weight.detach()
            rows = _halved(weight, weight.mean(dim=0, dtype=dtype))
            norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=dtype)
            return Products(rows.div_(norms.clamp_min_(0.5e-12)))  # half of what normalize takes for 0
        return Products(functional.normalize(centred(weight), dim=1).to(dtype))

    def of_dots(self, dots: Tensor, products: Products, words: Tensor) -> Tensor:
        return dots

    def by_products(self, products: Products, words: Tensor, out: Tensor) -> Tensor:
        return product(out, products.rows[words], products.rows.t())


class Similarity(NamedTuple):
    """The score of a word for a target word.

    Attributes:
        measure: of two rows of W, which the score is made of.
        score: (measures of any shape, overwritten; tau' (), above 0) -> scores, the softmax of which is q.
    """

    measure: Measure
    score: Callable[[Tensor, Tensor], Tensor]


def _distance(distances: Tensor, temperature: Tensor) -> Tensor:
    return distances.div_(-temperature)


def _gaussian(distances: Tensor, temperature: Tensor) -> Tensor:
    return distances.div_(temperature).clamp_max_(1e9).pow_(2).mul_(-0.5)  # finite: q of such a word is 0 anyway


def _cosine(cosines: Tensor, temperature: Tensor) -> Tensor:
    return cosines.div_(temperature)


SIMILARITIES: Dict[str, Similarity] = {
    "distance": Similarity(_Distance(), _distance),
    "gaussian": Similarity(_Distance(), _gaussian),
    "cosine": Similarity(_Cosine(), _cosine),
}
