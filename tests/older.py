"""What an older version of us left behind."""

from __future__ import annotations

import io
import zipfile

OF_TODAY = ("temperature.npy", "restart.npy")  # a model had neither, once


def older_model(npz: bytes) -> bytes:
    """The bytes of a model in the form of a version that no loader reads any more."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(npz)) as today, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as then:
        for entry in today.infolist():
            if entry.filename not in OF_TODAY:
                then.writestr(entry, today.read(entry))
    return file.getvalue()
