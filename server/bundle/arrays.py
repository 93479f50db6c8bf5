"""`.npz` members of a bundle: plain numeric arrays, read within bounds and without pickle.

numpy allocates what an array's header announces before it reads a byte. So the announced size is
compared with the archive's own sizes first, and both with a limit.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import BundleError

MAX_UNPACKED_BYTES = 512 << 20
MAX_MEMBERS = 4096


def encode_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Pack arrays as the bytes of an uncompressed-header, deflated `.npz` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def decode_arrays(data: bytes, where: str) -> dict[str, NDArray[Any]]:
    """Unpack the arrays of an `.npz` file.

    Parameters
    ----------
    data : bytes
        The file's content.
    where : str
        The file's path, for messages.

    Returns
    -------
    dict of str to numpy.ndarray
        New arrays of booleans, integers or floats, owned by the caller.

    Raises
    ------
    BundleError
        Not an `.npz` file, damaged, too large, or with members that are not plain numbers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise BundleError(f"{where}: {len(members)} arrays, more than {MAX_MEMBERS}")
            total = sum(member.file_size for member in members)
            if total > MAX_UNPACKED_BYTES:
                raise BundleError(f"{where}: unpacks to {total} bytes, over {MAX_UNPACKED_BYTES}")
            return {
                member.filename.removesuffix(".npy"): _read_array(
                    archive.read(member), f"{where}: {member.filename}"
                )
                for member in members
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BundleError(f"{where}: not a readable .npz file ({error})") from error


def _read_array(data: bytes, where: str) -> NDArray[Any]:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    except ValueError as error:
        raise BundleError(f"{where}: not a .npy array ({error})") from error
    if dtype.kind not in "biuf" or fortran:
        raise BundleError(f"{where}: dtype {dtype} or its order is not allowed in a bundle")
    count = math.prod(shape)
    if count * dtype.itemsize != len(data) - stream.tell():
        raise BundleError(f"{where}: the header announces {shape} of {dtype}, the data differ")
    return np.frombuffer(data, dtype=dtype, offset=stream.tell()).reshape(shape).copy()
