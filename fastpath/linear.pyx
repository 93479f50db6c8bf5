"""Linear models: one dot product in float64, rounded once.

Rules: raw = float32(sum of float64(x[i]) * coefficient[i], in index order, + intercept). A NaN
whose feature has a fill value is replaced first; another NaN, or an infinity, goes into the sum
as IEEE 754 says. No multiply-add is fused (setup.py forbids it). ONNX Runtime's MatMul may add in
another order: the float64 sums then differ in their last bits, and the float32 results
practically never do; the parity check at load looks at them bit for bit.

It does not scale: a StandardScaler is folded into the coefficients by the export.
"""

import numpy as np

from fastpath.errors import ModelError

from libc.stdint cimport int32_t, uintptr_t
from libc.string cimport memset

from fastpath._types cimport MAX_FEATURES
from fastpath.model cimport Model


# Owned by the Linear; the arrays are its ndarrays'.
ctypedef struct linear_t:
    int32_t n_features
    double intercept
    const double* coefficients
    const float* fill


cdef int32_t score_linear(
    void* impl, int32_t thread, const float* const* rows, int32_t n_rows, float* out_raw
) noexcept nogil:
    cdef const linear_t* linear = <const linear_t*> impl
    cdef const float* row
    cdef double total
    cdef float x
    cdef int32_t i
    cdef int32_t j
    for i in range(n_rows):
        row = rows[i]
        total = 0.0
        for j in range(linear.n_features):
            x = row[j]
            if x != x:
                x = linear.fill[j]
            total += <double> x * linear.coefficients[j]
        out_raw[i] = <float> (total + linear.intercept)
    return 0


cdef class Linear(Model):
    """A linear model.

    Parameters
    ----------
    coefficients : float64 [F]
        Finite. 1 to 1024 features.
    intercept : float
        Finite.
    fill : float32 [F]
        What replaces a NaN of each feature; NaN: nothing does.

    Raises
    ------
    ModelError
        A value is not finite, or the lengths differ.

    Attributes
    ----------
    coefficients, fill : numpy.ndarray
        Read-only copies.
    intercept : float
    resident_bytes : int
        Memory of the arrays.
    """

    cdef linear_t linear
    cdef readonly object coefficients
    cdef readonly object fill
    cdef readonly double intercept
    cdef readonly Py_ssize_t resident_bytes

    def __cinit__(self, **_):
        memset(&self.linear, 0, sizeof(linear_t))

    def __init__(self, *, coefficients, intercept, fill):
        cdef uintptr_t address
        if self.coefficients is not None:
            raise ModelError("a Linear is immutable; make a new one")
        weights = np.array(coefficients, dtype=np.float64, order="C")
        with np.errstate(over="ignore"):
            values = np.array(fill, dtype=np.float32, order="C")
        if weights.ndim != 1 or not 1 <= len(weights) <= MAX_FEATURES:
            raise ModelError(
                f"coefficients of shape {weights.shape}; a vector of 1 to {MAX_FEATURES} is needed"
            )
        if values.shape != weights.shape:
            raise ModelError(
                f"fill has shape {values.shape}, coefficients have {weights.shape}: one per feature"
            )
        if not np.isfinite(weights).all():
            feature = int(np.argmin(np.isfinite(weights)))
            raise ModelError(f"feature {feature}: its coefficient {weights[feature]} is not finite")
        if np.isinf(values).any():
            feature = int(np.argmax(np.isinf(values)))
            raise ModelError(f"feature {feature}: its fill value is infinite; NaN means no fill")
        if not np.isfinite(intercept):
            raise ModelError(f"the intercept {intercept!r} is not finite")
        weights.flags.writeable = False
        values.flags.writeable = False
        self.coefficients = weights
        self.fill = values
        self.intercept = intercept
        self.resident_bytes = weights.nbytes + values.nbytes
        address = weights.ctypes.data
        self.linear.coefficients = <const double*> address
        address = values.ctypes.data
        self.linear.fill = <const float*> address
        self.linear.intercept = self.intercept
        self.linear.n_features = <int32_t> len(weights)
        self.n_features = self.linear.n_features
        self.table.n_features = self.linear.n_features
        self.table.impl = &self.linear
        self.table.score_rows = score_linear
