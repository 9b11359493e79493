"""Pictures for timing: a few generated ones, held as JPEG files in memory, so that decoding is timed as with a folder of photographs."""

from __future__ import annotations

import io

from biaskit.images.base import ImageSource
from biaskit.images.generated import GeneratedSource

DISTINCT = 16


class Pictures(ImageSource):
    """`n` pictures, of which the first 16 are distinct."""

    name = "bench"

    def __init__(self, n: int) -> None:
        self.n = n
        drawn = GeneratedSource(min(n, DISTINCT), 0)
        self.files = []
        for index in range(len(drawn)):
            buffer = io.BytesIO()
            drawn.load(index).save(buffer, "JPEG", quality=90)
            self.files.append(buffer.getvalue())

    def __len__(self) -> int:
        """Return the number of pictures."""
        return self.n

    def identify(self, index: int) -> str:
        """Return the number."""
        return f"bench-{range(self.n)[index]:06d}"

    def extent(self, index: int) -> str:
        """Return the size in bytes."""
        return str(len(self.open(index)))

    def open(self, index: int) -> bytes:
        """Return the JPEG file."""
        return self.files[range(self.n)[index] % len(self.files)]
