"""Screenshots of a run as files for the page: whole, or as thumbnails. Called by app.py."""

from __future__ import annotations

import io
import re
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dpo_driver.core import blobs
from dpo_driver.core.errors import DataError, StoreError
from dpo_driver.core.store import BLOBS
from dpo_driver.core.store_files import vault_of

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
WIDTHS = (160, 320, 640)  # of thumbnails, in pixels
MOST_PIXELS = 40_000_000
_SHA = re.compile(r"[0-9a-f]{64}")


def picture(folder: Path, sha: str, width: int | None = None) -> tuple[bytes, str]:
    """A screenshot's bytes and media type.

    Args:
        folder: of the run.
        sha: names the blob.
        width: one of ``WIDTHS``: scaled down to it, if it is wider; as it is when None.

    Raises:
        DataError: there is none, or it is no picture; VaultError: the run is sealed and there is no key.
    """
    if not _SHA.fullmatch(sha) or width not in (None, *WIDTHS):
        raise DataError("there is no such picture", where=sha[:64])
    try:
        return _picture(folder, sha, width)
    except (StoreError, UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"there is no such picture: {error}", where=sha) from error


@lru_cache(maxsize=256)
def _picture(folder: Path, sha: str, width: int | None) -> tuple[bytes, str]:
    content = blobs.get(folder / BLOBS, sha, vault_of(folder))
    with Image.open(io.BytesIO(content)) as image:
        kind = FORMATS.get(image.format or "")
        if kind is None or image.width * image.height > MOST_PIXELS:
            raise ValueError("not a PNG, JPEG or WebP of usual size")
        if width is None or image.width <= width:
            return content, kind
        small = image.convert("RGB").resize((width, max(1, round(image.height * width / image.width))))
        out = io.BytesIO()
        small.save(out, "WEBP", quality=80, method=2)
        return out.getvalue(), "image/webp"
