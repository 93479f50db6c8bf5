"""The one interface of the three engines.

A model is a C function that scores rows (`score_rows_fn` in `_types.pxd`) and the memory behind
it. The serving path calls the function; `Model.score` is the same call for tests, the export's
report and the parity check at load.
"""

import numpy as np

from fastpath.errors import ModelError

from libc.stdint cimport int32_t, uintptr_t


cdef class Model:
    """A compiled model. Not usable by itself: `Forest`, `Linear` and `OnnxModel` derive it."""

    def score(self, rows, int thread=0):
        """Score rows with the serving path's own function.

        Parameters
        ----------
        rows : array of float32, shape (n_rows, n_features), C-contiguous
            NaN is passed to the model.
        thread : int
            Which thread's scratch memory to use; two callers at once need two numbers.

        Returns
        -------
        numpy.ndarray of float32, shape (n_rows,)
            Raw scores. A new array, owned by the caller.

        Raises
        ------
        ModelError
            The shape does not fit, or the engine failed.

        Notes
        -----
        The GIL is released while it scores.
        """
        cdef const float[:, ::1] matrix = np.ascontiguousarray(rows, dtype=np.float32)
        cdef Py_ssize_t n_rows = matrix.shape[0]
        cdef float[::1] out
        cdef const float* first
        cdef const float** pointers
        cdef uintptr_t[::1] addresses
        cdef Py_ssize_t i
        cdef int32_t code
        if self.table.score_rows is NULL:
            raise ModelError("this is the base class; use Forest, Linear or OnnxModel")
        if matrix.shape[1] != self.n_features:
            raise ModelError(
                f"rows have {matrix.shape[1]} columns, the model takes {self.n_features}"
            )
        scores = np.empty(n_rows, dtype=np.float32)
        if n_rows == 0:
            return scores
        out = scores
        # uintptr_t has the size of a pointer: an ndarray owns the pointer table.
        addresses = np.empty(n_rows, dtype=np.uintp)
        pointers = <const float**> &addresses[0]
        with nogil:
            first = &matrix[0, 0]
            for i in range(n_rows):
                pointers[i] = first + i * self.n_features
            code = self.table.score_rows(
                self.table.impl, thread, pointers, <int32_t> n_rows, &out[0]
            )
        if code != 0:
            raise ModelError(f"the engine failed with code {code} on {n_rows} rows")
        return scores
