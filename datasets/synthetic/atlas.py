"""Textures in one large image, each with all its reductions by powers of two in both directions.

A road seen from a car is squeezed a hundred times along and hardly at all across. So a texture is
kept reduced along its columns and along its rows independently (a "ripmap"), and a sample takes the
reduction that fits its footprint in each direction: nothing aliases, and nothing blurs more than it
must. Two views of a surface then agree, which is what photometric losses live on.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

LEVELS = 7  # reductions by 1, 2, ..., 64
GRANULE = 1 << (LEVELS - 1)  # what width and height of a texture are multiples of [texels]
_LARGEST_SIDE = 32_766  # OpenCV looks up no further along an axis


@dataclass(frozen=True)
class Chart:
    """Where a texture lies in the atlas.

    Attributes:
        column, row: upper left texel of its largest reduction
        width, height: of the texture itself [texels]
        tiles: it repeats, in both directions
    """

    column: int
    row: int
    width: int
    height: int
    tiles: bool = False


def ripmap(texture: np.ndarray) -> np.ndarray:
    """Return all reductions of a texture.

    Args:
        texture: (H, W, 3) values in 0..1, sides multiples of GRANULE

    Returns:
        (2 H, 2 W, 3) uint8: the reduction by 2^i along columns and 2^j along rows begins at
        column 2 W (1 - 2^-i) and row 2 H (1 - 2^-j)
    """
    height, width = texture.shape[:2]
    reductions = np.zeros((2 * height, 2 * width, 3), np.uint8)
    tall = np.asarray(texture, np.float32)
    for j in range(LEVELS):
        wide, row = tall, 2 * height - (2 * height >> j)
        for i in range(LEVELS):
            column = 2 * width - (2 * width >> i)
            h, w = wide.shape[:2]
            reductions[row : row + h, column : column + w] = np.clip(wide * 255 + 0.5, 0, 255)
            if i < LEVELS - 1:
                wide = 0.5 * (wide[:, 0::2] + wide[:, 1::2])
        if j < LEVELS - 1:
            tall = 0.5 * (tall[0::2] + tall[1::2])
    return reductions


class Atlas:
    """Pages of textures of one size, in columns, that can be filled anew one by one."""

    def __init__(self, pages: int, page_height: int, page_width: int) -> None:
        self._rows = min(pages, _LARGEST_SIDE // page_height)  # of pages
        columns = -(-pages // max(self._rows, 1))
        if not self._rows or columns * page_width > _LARGEST_SIDE:
            raise ValueError(f"{pages} pages of {page_width} x {page_height} cannot be looked up")
        self._height, self._width = page_height, page_width
        shape = self._rows * page_height, columns * page_width, 3
        self.texels = np.zeros(shape, np.uint8)

    def page(self, index: int) -> Page:
        """Return a page to fill from its beginning; what was on it is given up."""
        column, row = divmod(index, self._rows)
        top, left = row * self._height, column * self._width
        texels = self.texels[top : top + self._height, left : left + self._width]
        return Page(texels, left, top)

    def look_up(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return bilinear samples (N, M, 3) uint8 at (N, M) float32; texel centres are whole."""
        return cv2.remap(
            self.texels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )


class Page:
    """A part of an atlas that is filled from left to right in shelves."""

    def __init__(self, texels: np.ndarray, column: int, row: int) -> None:
        self._texels = texels
        self._column, self._row = column, row
        self._top = self._left = self._shelf = 0

    def add(self, texture: np.ndarray, *, tiles: bool = False) -> Chart:
        """Put a texture (H, W, 3), values in 0..1, onto the page."""
        height, width = texture.shape[:2]
        if self._left + 2 * width > self._texels.shape[1]:
            self._top, self._left, self._shelf = self._top + self._shelf, 0, 0
        if self._top + 2 * height > len(self._texels) or 2 * width > self._texels.shape[1]:
            raise ValueError(f"a texture of {width} x {height} does not fit on the page any more")
        place = np.s_[self._top : self._top + 2 * height, self._left : self._left + 2 * width]
        self._texels[place] = ripmap(texture)
        chart = Chart(self._column + self._left, self._row + self._top, width, height, tiles)
        self._left += 2 * width
        self._shelf = max(self._shelf, 2 * height)
        return chart
